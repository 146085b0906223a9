"""Which parts write the answer?"""

from __future__ import annotations

import numpy as np

from scrubjay.reporting.contribution import Contributions
from scrubjay.reporting.variant import part_name
from scrubjay.reporting.words import Chapter, listed, share, size
from scrubjay.viz import Figure, Section, bars

AGREES = 1e-4


def class_contributions(found: Contributions, positive: np.ndarray, names: tuple[str, str], what: str) -> Chapter:
    """Return the section of direct contributions, averaged over the rows of two classes.

    Args:
        found: the contributions to `what`.
        positive: which rows are of the first class.
        names: of the first and the second class.
        what: the number that is taken apart.
    """
    (one, one_error), (two, two_error) = found.mean(positive), found.mean(~positive)
    gap = one - two
    whole = float(gap.sum())
    finding = f"{_leaders(found.parts, gap, whole, names)} {_adds_up(found)}"
    labels = [part_name(part) for part in found.parts]
    body = (
        (
            f"The number taken apart is {what}. Holding the divisor of the final norm at its value in each string, it is a sum of one "
            "term for each head, MLP and embedding. The terms say what is written directly, at the last step; a part that works through "
            "later parts shows little here."
        ),
        Figure(
            bars(labels, one, one_error, f"Mean over {int(positive.sum())} {names[0]} strings", places=2),
            f"Direct contributions to {what}.",
        ),
        Figure(
            bars(labels, two, two_error, f"Mean over {int((~positive).sum())} {names[1]} strings", places=2),
            "The same for the other class.",
        ),
    )
    numbers: dict[str, object] = {
        "parts": list(found.parts),
        names[0]: {"mean": one.tolist(), "standard_error": one_error.tolist()},
        names[1]: {"mean": two.tolist(), "standard_error": two_error.tolist()},
        "largest_error_of_the_sum": found.error,
    }
    return Chapter(Section("Which parts write the answer?", finding, body), finding, numbers)


def _leaders(parts: tuple[str, ...], gap: np.ndarray, whole: float, names: tuple[str, str]) -> str:
    if abs(whole) < 1e-6:
        return f"On average {names[0]} and {names[1]} strings get the same answer, so there is no difference to take apart."
    shares = gap / whole
    order = np.argsort(-shares, kind="stable")
    chosen = [int(index) for index in order[:2] if shares[index] > 0.1]
    if not chosen:
        return (
            f"No part alone writes a tenth of the difference between {names[0]} and {names[1]} strings ({whole:+.1f})."
        )
    told = listed([f"{part_name(parts[index])} ({share(float(shares[index]))})" for index in chosen])
    verb = "writes" if len(chosen) == 1 else "write"
    rest = float(shares[order[len(chosen) :]].sum())
    return f"{told} {verb} most of the difference between {names[0]} and {names[1]} strings, which is {whole:+.1f}; all other parts and biases, {share(rest)}."


def _adds_up(found: Contributions) -> str:
    if found.error <= AGREES:
        where = "In every row the" if len(found.total) > 1 else "The"
        return f"{where} parts add up to the model's own number, to {size(found.error)}."
    if found.linear:
        return f"The parts add up to the model's own number to {size(found.error)}, more than the {AGREES} that rounding should leave."
    return f"The parts do NOT add up (off by {size(found.error)}): something after the final norm is not linear, so these are slopes only."


def text_contributions(found: Contributions, title: str, token: str, shown: int = 24) -> Chapter:
    """Return the section of direct contributions to one token's logit on one text; the `shown` largest are drawn."""
    values = found.values[0]
    order = np.sort(np.argsort(-np.abs(values), kind="stable")[:shown])
    lead = int(np.argmax(values))
    finding = (
        f"After this text the model's first choice is {token}. The part that most raises its logit directly is {part_name(found.parts[lead])} "
        f"({values[lead]:+.2f} of {found.total[0]:+.2f} above the mean logit). {_adds_up(found)}"
    )
    chart = bars([part_name(found.parts[index]) for index in order], values[order], None, title)
    many = (
        "All parts"
        if len(order) == len(values)
        else f"The {len(order)} largest of {len(values)} parts, in the order of computation"
    )
    body = (
        Figure(
            chart,
            f"{many}: direct contribution to the logit of {token}, minus the mean over all logits, at the last position.",
        ),
    )
    numbers: dict[str, object] = {
        "token": token,
        "parts": list(found.parts),
        "values": values.tolist(),
        "total": float(found.total[0]),
        "largest_error_of_the_sum": found.error,
    }
    return Chapter(Section("Which parts write the answer?", finding, body), finding, numbers)
