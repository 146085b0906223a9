"""The tour of a model of language, or of any model that reads token ids: what can be said without a task."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scrubjay.capture.model import Model
from scrubjay.errors import InputError
from scrubjay.interventions import run
from scrubjay.reporting.attention import head_names, mean_patterns
from scrubjay.reporting.check import check_model
from scrubjay.reporting.contribution import contributions
from scrubjay.reporting.opened import Pair
from scrubjay.reporting.patching import patching
from scrubjay.reporting.sections.attention import text_attention
from scrubjay.reporting.sections.checks import checks
from scrubjay.reporting.sections.contributions import text_contributions
from scrubjay.reporting.sections.patching import TextPair, text_patching
from scrubjay.reporting.steps import Steps, Story, within
from scrubjay.reporting.text import Text, fresh_batches, texts_of
from scrubjay.reporting.variant import components
from scrubjay.reporting.words import Chapter
from scrubjay.viz import Section, tag

SHOWN_HEADS = 12
MOST_PATCHES = 1500

_HOW = """import scrubjay as sj

model = sj.load({source!r})
data = sj.Dataset("mine", {{"input_ids": ids, "attention_mask": mask}}, labels, {{"my_feature": sj.Feature("my_feature", values)}})
hypothesis = sj.Hypothesis("what I think")
answer = hypothesis.node("answer", site="{result}@-1")
answer.reads("part", site="{site}@-1", feature="my_feature", via="direct")
print(sj.scrub(model, hypothesis, data))"""


def text_chapters(pair: Pair, given: Sequence[str], seed: int, steps: Steps) -> Story:
    """Return the tour's story: checks, attention, contributions, patching, and how to state a hypothesis."""
    model = pair.model
    if "input_ids" not in model.circuit.inputs:
        raise InputError(
            f"a tour looks at models that read token ids; {model.name} reads {', '.join(model.circuit.inputs)}"
        )
    texts = texts_of(model, given, seed)
    steps("checking the capture", 0, 0)
    chapters = [checks(model, check_model(model, pair.forward, fresh_batches(model, seed)))]
    if head_names(model):
        steps("looking at attention", 0, 0)
        singles = [(text.title, text.tokens, mean_patterns(model, text.inputs)) for text in texts]
        chapters.append(text_attention(singles, SHOWN_HEADS))
    steps("taking the answer apart", 0, 0)
    chapters += [_contributed(model, texts[0]), _patched(model, texts, steps), _unstated(model)]
    title = f"A first look at {model.name}"
    summary = (
        f"{model.name} was captured from its own code. No task is registered for it, so this page shows its parts at work on "
        f"{'one text' if len(texts) == 1 else f'{len(texts)} texts'} and judges nothing.\n\n{chapters[-2].finding}"
    )
    main = (chapters[0].finding, chapters[-3].finding, chapters[-2].finding)
    facts: dict[str, object] = {"texts": [text.title for text in texts]}
    return Story(title, summary, tuple(chapters), main, facts)


def _last(result: torch.Tensor) -> torch.Tensor:
    """Return the result at the last position, (batch, vocab)."""
    return result[:, -1] if result.dim() == 3 else result


def _named(model: Model, token: int) -> str:
    return (
        f"token {token}"
        if model.tokenizer is None
        else f"\u201c{model.tokenizer.decode([token])}\u201d (token {token})"
    )


def _contributed(model: Model, text: Text) -> Chapter:
    top = int(_last(run(model, text.inputs).output)[0].argmax())

    def above_mean(result: torch.Tensor) -> torch.Tensor:
        last = _last(result)
        return last[:, top] - last.mean(1)

    try:
        found = contributions(model, text.inputs, above_mean, -1)
    except InputError as error:
        words = f"Not shown: {error}."
        return Chapter(Section("Which parts write the answer?", words), words, {"refused": str(error)})
    return text_contributions(found, f"After {text.title}", _named(model, top))


def _patched(model: Model, texts: Sequence[Text], steps: Steps) -> Chapter:
    layers = [f"L{layer}.resid_pre" for layer in range(model.layers)]
    found = _pair(model, texts, layers, steps)
    return text_patching(found, layers)


def _pair(model: Model, texts: Sequence[Text], layers: list[str], steps: Steps) -> TextPair | str:
    """Return the patches between the first two texts, or why there are none."""
    if len(texts) < 2:
        return "Not shown: patching needs two texts; give a second one with the same number of tokens."
    if not layers:
        return "Not shown: no layers were recognised in this model."
    clean, corrupted = texts[:2]
    if len(clean.tokens) != len(corrupted.tokens):
        return (
            f"Not shown: patching goes token by token, and the first two texts have {len(clean.tokens)} and {len(corrupted.tokens)} "
            "tokens; give two with the same number."
        )
    ends = [_last(run(model, text.inputs).output)[0] for text in (clean, corrupted)]
    one, two = (int(end.argmax()) for end in ends)
    if one == two:
        two = int((ends[1] - ends[0]).argmax())
    if one == two:
        return "Not shown: both texts give the same answer, so there is nothing to move."

    def metric(result: torch.Tensor) -> torch.Tensor:
        last = _last(result)
        return last[:, one] - last[:, two]

    stream = [f"{layer}@{place}" for layer in layers for place in range(len(clean.tokens))]
    parts = list(components(model))
    if len(stream) + len(parts) > MOST_PATCHES:
        return f"Not shown: {len(stream) + len(parts)} patches would take long here; give shorter texts."
    made = patching(model, clean.inputs, corrupted.inputs, metric, parts, "denoise", within(steps, "patching parts"))
    flow = patching(
        model, clean.inputs, corrupted.inputs, metric, stream, "denoise", within(steps, "patching the stream")
    )
    words = f"the logit of {_named(model, one)} minus that of {_named(model, two)}, at the last position"
    return TextPair(clean.tokens, corrupted.tokens, words, made, flow)


def _unstated(model: Model) -> Chapter:
    finding = "No hypothesis is registered for this model, so none was scrubbed."
    sites = components(model)
    code = _HOW.format(source=model.name, result=model.anatomy.result, site=sites[-1] if sites else "L0.H0.out")
    lines = [piece for line in code.splitlines() for piece in (line, tag("br"))]
    body = (
        (
            "A hypothesis names sites and, for each, a feature of the input that it is said to carry. Labelled rows with that feature, and "
            "a few lines, are all it takes; the scrub then says how much of the behaviour survives when everything else is resampled."
        ),
        tag("p", tag("code", *lines)),
    )
    return Chapter(Section("Does a hypothesis hold?", finding, body), finding, {"registered": False})
