"""Pages of scrubs, challenges, costs and predictions: what they show, and the words that none of them uses."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import numpy as np

import scrubjay as sj
from scrubbing.grid import GRID, either, fresh, grid_data, grid_model
from scrubjay.reporting.notebook import drawn
from scrubjay.scrubbing import Challenge, Checked, Costs, ScrubResult

ROOT = Path(__file__).parents[2]
CLAIMED = re.compile(r"\b(proved|proven|proves|confirmed|confirms|verified true)\b", re.IGNORECASE)
DENIAL = re.compile(r"\b(no|not|never|nothing|none|cannot)\b", re.IGNORECASE)


@cache
def found() -> tuple[ScrubResult, Challenge, Costs, Checked]:
    data = grid_data(GRID[GRID[:, 2] < 4], split=np.where(GRID[GRID[:, 2] < 4][:, 2] < 2, "explore", "confirm"))
    hypothesis = either("z1>4")
    result = sj.scrub(
        grid_model(), hypothesis, data, 300, 2, floor=["all", "claimed"], criterion={"recovered": ">= 0.5"}
    )
    attacks = sj.challenge(result, grid_model(), data, 200, 1, generator=fresh, rounds=2)
    prediction = sj.predict(either(b=None), grid_data(), grid_data(GRID[GRID[:, 1] < 5]))
    return result, attacks, sj.costs(grid_model(), hypothesis, data, 200, 1), prediction.check(grid_model())


@cache
def shown() -> str:
    result, attacks, costs, checked = found()
    return "".join(map(drawn, (result, attacks, costs, checked.prediction, checked)))


def test_a_page_shows_floors_seeds_flags_rivals_examples_and_predictions() -> None:
    result, attacks, costs, checked = found()
    for text in (
        "all inputs resampled", "labels permuted", "claimed sites only resampled", "recovered by each seed",
        "exploratory only: 128 of the 256 rows are of the explore split", "the criterion declared before (recovered &gt;= 0.5) is met",
        "The hypothesis and its rivals", "z1&gt;4, z2&gt;3 dealt out to other rows", "Fresh inputs that fared worst", "Rivals that do not fit the model",
        "Recovered by each version", "Predicted to go wrong", "answered otherwise",
    ):  # fmt: skip
        assert text in shown().replace("&#x27;", "'"), text
    assert f"{checked.prediction.wrong.sum()} inputs that were predicted wrong" in shown()
    assert attacks.search.examples[0].text in shown()
    assert f"{costs.whole.recovered:.3f}" in shown()
    assert result.verdict.split(";")[0] in shown()


def test_a_report_takes_them_all(tmp_path: Path) -> None:
    page = sj.report(tmp_path / "page.html", *found()).read_text()
    assert "What each claim of either costs" in page
    assert "Challenge to either" in page


def test_no_output_claims_to_have_shown_that_a_hypothesis_is_true() -> None:
    result, attacks, costs, checked = found()
    said = (
        shown(),
        result.verdict,
        repr(result),
        str(attacks),
        repr(attacks),
        str(costs),
        repr(costs),
        str(checked.prediction),
        checked.verdict,
    )
    for text in said:
        assert not CLAIMED.search(text)


def test_no_text_of_the_source_or_the_pages_does() -> None:
    """Every text of the source that could be shown, and every line of the pages; they may use the words to deny them."""
    found: list[str] = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for line, text in [(node.lineno, str(node.value)) for node in nodes if isinstance(node, ast.Constant)]:
            near = [text[max(0, hit.start() - 80) : hit.end() + 80] for hit in CLAIMED.finditer(text)]
            found += [f"{path.name}:{line}: {one}" for one in near]
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{path.name}:{number}: {line}" for number, line in enumerate(lines, 1) if CLAIMED.search(line)]
    assert [line for line in found if not DENIAL.search(line)] == []
