"""The tour of a bracket classifier."""

from __future__ import annotations

import numpy as np
import torch

from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset
from scrubjay.interventions import run
from scrubjay.reporting import brackets
from scrubjay.reporting.attention import mean_patterns, reading
from scrubjay.reporting.check import check_model
from scrubjay.reporting.contribution import contributions
from scrubjay.reporting.opened import Pair
from scrubjay.reporting.part import Parts, resample_parts
from scrubjay.reporting.patching import Patching, patching
from scrubjay.reporting.sections.attention import bracket_attention
from scrubjay.reporting.sections.checks import Score, checks
from scrubjay.reporting.sections.contributions import class_contributions
from scrubjay.reporting.sections.patching import PatchedKind, bracket_patching
from scrubjay.reporting.sections.scrubbing import hypotheses, one_at_a_time
from scrubjay.reporting.steps import Steps, Story, within
from scrubjay.reporting.variant import components
from scrubjay.reporting.words import Chapter
from scrubjay.scrubbing import scrub
from scrubjay.scrubbing.scrub import cross_entropy
from scrubjay.tasks import brackets as task

PAIRS = 48
SIZE = 14
SCRUB_SEEDS = 2
_FEATURES = ("count", "left_horizon", "horizon", "start", "is_balanced")
_KINDS = {"[start]": task.START, "(": task.OPEN, ")": task.CLOSE, "[end]": task.END}


def bracket_chapters(pair: Pair, seed: int, samples: int, rows: int, steps: Steps) -> Story:
    """Return the tour's story: checks, attention, contributions, patching, single parts, hypotheses."""
    model = pair.model
    data = brackets.tour_data(rows, seed)
    made = {kind: brackets.pairs(kind, PAIRS, seed, SIZE) for kind in brackets.KINDS}
    steps("checking the capture", 0, 0)
    fresh = brackets.tour_data(64, seed + 1)
    found = check_model(
        model, pair.forward, [{name: torch.from_numpy(np.array(a)) for name, a in fresh.inputs.items()}]
    )
    first = checks(model, found, _score(model, data, seed))
    steps("looking at attention", 0, 0)
    second = _attention(model, data, made)
    steps("taking the answer apart", 0, 0)
    some = data.select(slice(0, 500))
    parts = contributions(model, some, answer, 0)
    third = class_contributions(
        parts, some.labels == 1, ("balanced", "unbalanced"), "logit[balanced] - logit[unbalanced]"
    )
    fourth = _patched(model, made, steps)
    alone = _alone(model, data, seed, steps)
    described = {name: data.feature(name).description for name in _FEATURES}
    fifth = one_at_a_time(alone, described)
    stated, results = brackets.hypotheses(), []
    for number, one in enumerate(stated):
        steps("scrubbing hypotheses", number, len(stated))
        results.append(scrub(model, one.hypothesis, data, samples, SCRUB_SEEDS))
    sixth = hypotheses(stated, results, alone)
    chapters = (first, second, third, fourth, fifth, sixth)
    facts: dict[str, object] = {
        "data": f"{len(data)} strings, {data.digest}",
        "scrubs": f"{samples} samples for each of {SCRUB_SEEDS} seeds",
        "hypotheses": {one.hypothesis.name: one.hypothesis.digest for one in stated},
    }
    title = f"How {model.name} tells balanced brackets"
    main = (first.finding, fourth.finding, sixth.finding)
    return Story(title, _summary(model, chapters), chapters, main, facts)


def answer(logits: torch.Tensor) -> torch.Tensor:
    """Return logit[balanced] - logit[unbalanced] of each row."""
    return logits[:, 1] - logits[:, 0]


def _summary(model: Model, chapters: tuple[Chapter, ...]) -> str:
    return (
        f"{model.name} reads a string of brackets and says whether every bracket is closed. This page takes it apart: what it computes, "
        f"which parts matter, and whether a stated account of it survives a test that it could fail.\n\n{chapters[5].finding}"
    )


def _score(model: Model, data: Dataset, seed: int) -> Score:
    logits = run(model, data).output
    labels = torch.from_numpy(np.array(data.labels))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    base = float(labels.double().mean())
    constant = -sum(share * float(np.log(share)) for share in (base, 1 - base) if share > 0)
    return Score(
        len(data),
        float((logits.argmax(1) == labels).double().mean()),
        float(cross_entropy(logits, labels).mean()),
        constant,
        float(cross_entropy(logits[order], labels).mean()),
    )


def _attention(model: Model, data: Dataset, made: dict[str, brackets.Pairs]) -> Chapter:
    pair = made["left_horizon"]
    singles = []
    for name, rows in (("A balanced string", pair.clean), ("An unbalanced string of the same length", pair.corrupted)):
        text = rows.texts[0]
        singles.append((f"{name}: {text}", ["[start]", *text, "[end]"], mean_patterns(model, rows.select([0]))))
    places = ["[start]", *map(str, range(1, SIZE + 1)), "[end]"]
    return bracket_attention(
        singles, mean_patterns(model, pair.clean), places, reading(model, data.select(slice(0, 500)), 0, _KINDS)
    )


def _patched(model: Model, made: dict[str, brackets.Pairs], steps: Steps) -> Chapter:
    layers = [f"L{layer}.resid_pre" for layer in range(model.layers)] + [f"L{model.layers - 1}.resid_post"]
    places = ["[start]", *map(str, range(1, SIZE + 1)), "[end]"]
    stream = [f"{layer}@{place}" for layer in layers for place in range(SIZE + 2)]
    kinds = {}
    for kind, pair in made.items():
        say = within(steps, f"patching pairs ({kind})")

        def both(sites: tuple[str, ...], pair: brackets.Pairs = pair) -> tuple[Patching, Patching]:
            restore = patching(model, pair.clean, pair.corrupted, answer, sites)
            return restore, patching(model, pair.clean, pair.corrupted, answer, sites, "noise")

        kinds[kind] = PatchedKind(
            (pair.clean.texts[0], pair.corrupted.texts[0]),
            len(pair.clean),
            both(components(model, "@0")),
            both(components(model)),
            patching(model, pair.clean, pair.corrupted, answer, stream, "denoise", say),
        )
    return bracket_patching(kinds, layers, places)


def _alone(model: Model, data: Dataset, seed: int, steps: Steps) -> Parts:
    some = data.select(slice(0, min(len(data), 1000)))
    features = {name: some.feature(name) for name in _FEATURES}
    say = within(steps, "resampling one part at a time")
    return resample_parts(model, some, components(model, "@0"), features, seed, say)
