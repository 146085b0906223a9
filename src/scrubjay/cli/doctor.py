"""`scrubjay doctor`: compare any model with its module, and say what was recognised, what was not, and what to do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

import click

from scrubjay.capture.check import ROWS
from scrubjay.capture.examine import Case, Examination, examine
from scrubjay.capture.model import Model
from scrubjay.cli.load import described
from scrubjay.cli.progress import steps_shown
from scrubjay.cli.reading import given, reading
from scrubjay.zoo.load import load

WIDTH = 100


@click.command("doctor")
@click.argument("source")
@reading
@click.option("--json", "as_json", is_flag=True, help="Print as JSON and nothing else.")
@click.pass_context
def command(context: click.Context, source: str, as_json: bool, **options: Any) -> None:
    """Compare a model with its own module, and say what was recognised.

    SOURCE is zoo/NAME, a local folder, or a hub name. Exits with 1 where something failed.
    """
    with steps_shown(quiet=as_json) as steps:
        steps(f"loading {source}", 0, 0)
        model = load(source, **given(options))
        found = examine(model, lambda words: steps(words, 0, 0))
    if as_json:
        whole = {**{key: value for key, value in described(model).items() if key != "sites"}, **found.to_dict()}
        click.echo(json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False))
    else:
        click.echo("\n".join(told(model, source, found)))
    context.exit(1 if found.failed else 0)


def told(model: Model, source: str, found: Examination) -> Iterable[str]:
    """Yield the lines of a report on a model, none longer than 100 columns where its names allow it."""
    yield repr(model)
    yield from _recognised(model, found)
    yield from _kept(found)
    yield from _exact(found)
    yield from _behaviour(found)
    yield from _cost(found)
    if model.anatomy.notes:
        yield _heading("notes")
        for note in model.anatomy.notes:
            yield from _wrapped(note, "  ")
    yield _heading("next")
    for words in _next(model, source, found):
        yield from _wrapped(words, "  ")


def _heading(words: str) -> str:
    return "\n" + click.style(words, bold=True)


def _wrapped(words: str, indent: str, hanging: int = 0) -> list[str]:
    space = " " * (len(indent) + hanging) if hanging or not indent.strip() else " " * len(indent)
    return textwrap.wrap(
        words, WIDTH, initial_indent=indent, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )


def _mark(holds: bool | None) -> str:
    return (
        click.style("ok  ", fg="green")
        if holds
        else "--  "
        if holds is None
        else click.style("FAIL", fg="red", bold=True)
    )


def _recognised(model: Model, found: Examination) -> Iterable[str]:
    yield _heading("recognised")
    heads = sorted(set(model.heads))
    count = "no layers: values are addressed by module path"
    if heads:
        count = f"{model.layers} layers {f'of {_or(heads)} heads' if any(heads) else 'without attention heads'}"
    yield f"  {'anatomy':<11}{count}; {len(model.sites)} named sites"
    for what, has, says in found.verdict.counted:
        if has != says:
            yield f"  {'counts':<11}{has} {what}; the configuration says {says}"
    last = ""
    for layers, topic, words in found.traits:
        where = "" if layers in {"L*", "ends"} else f"{layers}: "
        among = ", of the projections recognised" if topic == "biases" else ""
        yield from _wrapped(f"{where}{words}{among}", f"  {'' if topic == last else topic:<11}")
        last = topic


def _or(numbers: list[int]) -> str:
    return " or ".join(map(str, numbers))


def _kept(found: Examination) -> Iterable[str]:
    yield _heading("kept as it is (opaque: exact, but not taken apart)")
    if not found.opaque:
        yield "  nothing: every operation was understood"
    for item in found.opaque[:12]:
        yield from _wrapped(f"{item.count:>4} x {item.operator}, on the way to {item.module}", "  ", 4)
    if len(found.opaque) > 12:
        yield f"  and {len(found.opaque) - 12} more"


def _exact(found: Examination) -> Iterable[str]:
    verdict = found.verdict
    limit = f"at most {verdict.tolerance or 0:.0e} of the result's spread is rounding"
    yield _heading(f"the same numbers as the module ({verdict.dtype}; {limit})")
    if found.source:
        yield "  sizes are rows x the decoder's length/the encoder's length"
    yield from _line(
        "rows padded at both ends",
        _size(ROWS, verdict.length, found.source) if verdict.length else "",
        verdict.exact,
        verdict.difference,
        verdict.reason,
    )
    for case in found.cases:
        yield from _case(case)


def _case(case: Case) -> Iterable[str]:
    yield from _line(case.name, _size(case.rows, case.length, case.source), case.holds, case.difference, case.reason)


def _size(rows: int, length: int, source: int) -> str:
    return f"{rows} x {length}/{source}" if source else f"{rows} x {length}"


def _line(name: str, size: str, holds: bool | None, difference: float | None, reason: str) -> Iterable[str]:
    apart = "" if difference is None else f"{difference:.1e}" if difference else "0"
    head = f"  {_mark(holds)}  {name:<26}{size:>11}   {apart:<9}"
    if not reason:
        yield head.rstrip()
        return
    bare = 2 + 4 + 2 + 26 + 11 + 3 + 9
    first, *rest = textwrap.wrap(reason, WIDTH - bare, break_long_words=False) or [""]
    yield head + first
    yield from (" " * bare + line for line in rest)


def _behaviour(found: Examination) -> Iterable[str]:
    verdict = found.verdict
    yield _heading("behaviour, by changing one token")
    causal = {
        True: "causal: a position changes nothing before it",
        False: "not causal: earlier positions read later ones",
    }
    rows = {
        True: "rows are independent, in any order",
        False: "rows are NOT independent: one row changes another's result; scrub refuses this model",
    }
    yield f"  {'--  ' if verdict.causal is None else _mark(True)}  {causal.get(verdict.causal, 'whether it is causal does not show in its result')}"  # type: ignore[arg-type]
    yield f"  {_mark(verdict.rows_independent)}  {rows.get(verdict.rows_independent, 'whether rows are independent could not be told')}"  # type: ignore[arg-type]


def _cost(found: Examination) -> Iterable[str]:
    yield _heading("cost")
    yield f"  weights {_bytes(found.weight_bytes)}; a capture takes {found.capture_seconds:.1f} s and {_bytes(found.capture_bytes)} more memory at its peak"
    timed = [case for case in found.cases if case.circuit_seconds]
    if timed:
        case = max(timed, key=lambda one: one.rows * one.length)
        yield f"  {_size(case.rows, case.length, case.source)} tokens: module {case.module_seconds:.2f} s, circuit {case.circuit_seconds:.2f} s (one run each)"


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def _example(model: Model) -> str:
    """Return a site that the model has, one of those worth a look first."""
    addresses = model.sites.addresses
    for kind in ("H*.k", "H*.z", "attn.out", "mixer.out", "mlp.out"):
        if found := [address for address in addresses if address.endswith(f".{kind}")]:
            return found[0].replace("H*", "H0")
    return addresses[-1]


def _next(model: Model, source: str, found: Examination) -> list[str]:
    failed = [case.name for case in found.cases if case.holds is False]
    steps: list[str] = []
    if found.verdict.exact is False or failed:
        steps.append(
            f"do not trust results of this model{f' ({chr(44).join(failed)})' if failed else ''}: write to the project with this page (--json) and the "
            "versions of torch and transformers; until then use inputs of the kinds that are ok"
        )
    elif found.verdict.exact is None:
        steps.append(f"it could not be compared with its module: {found.verdict.reason}")
    if found.verdict.rows_independent is False:
        steps.append(
            "run it one row at a time; look for a batch norm in training mode, or experts that sort tokens across rows"
        )
    if not model.layers:
        steps.append(
            "use module paths as addresses: `print(model.sites)` lists them; sj.zero, sj.patch and sj.run(keep=...) take them"
        )
    elif not found.failed:
        steps.append(
            f"`scrubjay load {source}` lists the sites; `print(model.explain('{_example(model)}'))` says what one is"
        )
    if found.opaque:
        steps.append("an opaque operation is exact and can be patched as a whole; what is inside it has no address")
    return steps
