"""docs/models.md: what Scrubjay and its peers make of every family of transformers, from the tests' own rows.

python tests/models_page.py FOLDER    # the folder that SCRUBJAY_MODELS named when tests/capture/test_families.py ran
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from families import NOT_CAPTURED

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "models.md"
PEERS = ROOT / "benchmarks" / "peers" / "results" / "models.json"
COLUMNS = ("family", "difference", "attention", "MLP", "opaque", "notes")

INTRODUCTION = """# Models

Written by `make models`, from the rows of `tests/capture/test_families.py`; do not edit it by hand.

Each row is a small random model of one family of transformers {version}, made from its own configuration class by one generic
shrinking (`tests/families.py`) and with weights of unit scale. It was captured by `sj.load` with no code for the family, and
compared with the module's own forward at another batch size, at length 1, in one row, and padded on either side.

- **difference**: the greatest difference of a logit on a real token, in units of the logits' standard deviation (float32; at
  most {tolerance:g} passes; squeezebert 2e-05, which is 4e-14 in 64 bits). Below 1e-6 or so it is the order in which a matrix product adds up.
- **attention**, **MLP**: of the model's own blocks, how many have these sites by name; experts where an MLP has them.
- **opaque**: operations kept as they are, with how often they occur. They are exact, but no rewrite sees into them.
- **notes**: what the recognisers say they did not understand. It stays addressable by module path.

The same test makes small mistakes on purpose (another activation, ten times the epsilon, padding or order not masked, rotary
embeddings off by one, scores or a bias slightly wrong) and fails unless each of them shows.

{count} families pass. `scrubjay doctor MODEL` does the same for any model of yours.
"""


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return what a row says beside its difference, as the page writes it."""
    heads = "/".join(map(str, row["heads"]))
    attention = f"{row['attention']} of {row['layers']} layers, {heads} heads" if row["layers"] else "-"
    mlp = f"{row['mlp']} of {row['layers']}" if row["layers"] else "-"
    if row["experts"]:
        mlp += f", {row['experts']} experts"
    opaque = ", ".join(f"{name} {count}" for name, count in sorted(row["opaque"].items())) or "none"
    return [attention, mlp, _plain(opaque), _plain("; ".join(row["notes"]))]


def _plain(text: str) -> str:
    """Return text as it may stand in a cell."""
    return re.sub(r"\s+", " ", text.replace("|", "/").replace("<", "(").replace(">", ")")).strip()


def _short(text: str) -> str:
    plain = _plain(text)
    return plain if len(plain) <= 66 else f"{plain[:65]}…"


def _number(far: float) -> str:
    """Return a difference as the page writes it."""
    return f"{far:.0e}".replace("e-0", "e-") if far else "exact"


def documented(kind: str) -> list[str] | None:
    """Return the cells that the page has for a family, without its difference; None where it has no such row."""
    for line in PAGE.read_text().splitlines():
        parts = [part.strip() for part in line.strip().strip("|").split(" | ")]
        if parts[0] == kind and len(parts) >= len(COLUMNS):
            return parts[2 : len(COLUMNS)]
    return None


def page(
    rows: Sequence[Mapping[str, Any]], peers: Mapping[str, Mapping[str, str]], version: str, tolerance: float
) -> str:
    """Return the whole page."""
    names = list(dict.fromkeys(name for told in peers.values() for name in told))
    lines = [INTRODUCTION.format(version=version, tolerance=tolerance, count=len(rows))]
    lines += [_line([*COLUMNS]), _line(["---"] * len(COLUMNS))]
    lines += [_line([row["family"], _number(row["error"]), *cells(row)]) for row in rows]
    lines += ["", "## Not captured", "", "These are refused with a message, or by the check at load:", ""]
    lines += [f"- {kind}: {reason}." for kind, reason in sorted(NOT_CAPTURED.items())]
    lines += ["", "## The same models in other tools", "", PEERS_TEXT]
    lines += [_line(["family", "Scrubjay", *names]), _line(["---"] * (len(names) + 2))]
    for row in (row for row in rows if row["family"] in peers):
        told = peers[row["family"]]
        theirs = [_short(told.get(name, "not tried")) for name in names]
        lines.append(_line([row["family"], _number(row["error"]), *theirs]))
    return "\n".join(lines) + "\n"


PEERS_TEXT = """Each tool loaded the same saved model, offline, in an environment of its own (`make peers`, versions and limits in
`benchmarks/peers/README.md`), and ran the same batch; families that are not here were not tried. A number is the greatest difference of a logit from the
module's own, without a unit.
"""


def _line(parts: Sequence[str]) -> str:
    return "| " + " | ".join(part or " " for part in parts) + " |"


def main() -> None:
    """Write the page."""
    import transformers  # noqa: PLC0415

    rows = sorted(
        (json.loads(file.read_text()) for file in Path(sys.argv[1]).glob("*.json")), key=lambda row: row["family"]
    )
    told = json.loads(PEERS.read_text())["families"] if PEERS.is_file() else {}
    peers = {kind: {peer: found["verdict"] for peer, found in row.items()} for kind, row in told.items()}
    PAGE.write_text(page(rows, peers, transformers.__version__, 1e-5))
    print(f"{PAGE}: {len(rows)} families")  # noqa: T201


if __name__ == "__main__":
    main()
