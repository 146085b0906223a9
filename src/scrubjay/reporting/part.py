"""One part at a time: what the loss becomes when one value is replaced by that of a row agreeing on a feature.

Everything else stays the row's own, so the other parts can make up for what is lost: many wrong ideas pass here. Only a
joint test, `sj.scrub`, takes away all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.errors import InputError
from scrubjay.interventions import replace, run
from scrubjay.reporting.variant import Progress, outcomes
from scrubjay.scrubbing.sample import agreeing
from scrubjay.scrubbing.scrub import cross_entropy


@dataclass(frozen=True, eq=False)
class Parts:
    """Losses with one part resampled, in nats, lower is better.

    Attributes:
        sites: the parts. features: what the other row agreed on; `None` for any row.
        losses: shape (site, feature, row). original: the model's own losses, shape (row,).
        floor: the mean loss with the whole answer taken from an unrelated row.
    """

    sites: tuple[str, ...]
    features: tuple[str | None, ...]
    losses: np.ndarray
    original: np.ndarray
    floor: float

    @property
    def recovered(self) -> np.ndarray:
        """The fraction of the loss recovered, (site, feature): 1 where resampling this part costs nothing."""
        return (self.floor - self.losses.mean(2)) / (self.floor - float(self.original.mean()))

    @property
    def error(self) -> np.ndarray:
        """The standard error of each fraction over rows, the floor taken as known."""
        spread = (self.losses - self.original).std(2, ddof=1) / np.sqrt(self.losses.shape[2])
        return spread / abs(self.floor - float(self.original.mean()))

    def cost(self, site: str, feature: str | None) -> float:
        """Return the share of the loss that resampling a part costs: 1 - recovered.

        Raises `InputError` for a pair that was not measured.
        """
        if site not in self.sites or feature not in self.features:
            raise InputError(
                f"{site} with {feature} was not measured; sites: {', '.join(self.sites)}; features: {self.features}"
            )
        return float(1 - self.recovered[self.sites.index(site), self.features.index(feature)])


def resample_parts(
    model: Model,
    data: Dataset,
    sites: Sequence[str],
    features: Mapping[str, Feature],
    seed: int,
    progress: Progress | None = None,
) -> Parts:
    """Return the losses with each site alone resampled among rows that agree on each feature, and among all rows.

    Args:
        model: a classifier with one answer for each row.
        data: rows with labels.
        sites: addresses at a position (so that rows of other lengths fit).
        features: one value for each row of `data`, by name.
        seed: of the draws.
        progress: called with (variants done, variants in all).
    """
    kept = run(model, data, keep=list(sites))
    labels = torch.from_numpy(np.array(data.labels))
    original = cross_entropy(kept.output, labels).numpy()
    rows = np.arange(len(data))
    generator = np.random.default_rng(seed)
    names: tuple[str | None, ...] = (None, *features)
    drawn: dict[str | None, np.ndarray] = {
        name: agreeing(feature.values, rows, generator) for name, feature in features.items()
    }
    drawn[None] = generator.integers(len(data), size=len(data))
    changes = [
        replace(site, kept.values[site].as_tensor()[torch.from_numpy(drawn[name])]) for site in sites for name in names
    ]
    made = outcomes(model, data, changes, progress)
    losses = np.stack([cross_entropy(one, labels).numpy() for one in made]).reshape(len(sites), len(names), len(data))
    floor = float(cross_entropy(kept.output[torch.from_numpy(generator.permutation(len(data)))], labels).mean())
    return Parts(tuple(sites), names, losses, original, floor)
