"""What the figures show, what they refuse, and what they weigh."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubjay.errors import InputError
from scrubjay.viz import (
    Branch,
    Figure,
    ScrubRow,
    Section,
    attention,
    bars,
    colour,
    heatmap,
    notebook,
    page,
    recovered,
    table,
    tokens,
    tree,
)
from scrubjay.viz.axis import Axis, spanning

anything = st.floats(width=32)


def row(**changes: Any) -> ScrubRow:
    given = {"name": "h", "recovered": 0.9, "standard_error": 0.02, "low": 0.86, "high": 0.94}
    losses = {"original": 0.0, "floor": 4.0, "scrubbed": 0.4, "constant": 0.7}
    return ScrubRow(**{**given, **losses, **changes})


def test_six_heads_of_42_tokens_are_small() -> None:
    rng = np.random.default_rng(0)
    scores = np.exp(rng.normal(0, 2, (6, 42, 42)))
    names = ["(", ")"] * 21
    heads = [f"L{layer}.H{head}" for layer in range(3) for head in range(2)]
    even = attention(np.full((6, 42, 42), 1 / 42), names, heads)
    random = attention(scores / scores.sum(-1, keepdims=True), names, heads)
    assert len(even.encode()) < 100_000
    assert len(random.encode()) < 150_000
    assert len(notebook(even).encode()) - len(even.encode()) < 20_000


def test_attention_paints_each_cell_in_its_place() -> None:
    pattern = np.zeros((1, 3, 3))
    pattern[0, 2, :2] = 1.0
    drawing = attention(pattern, ["a", "b", "c"], ["L0.H0"])
    assert f'<path d="M0 2.5h2" stroke="{colour.level(colour.LEVELS)}"' in drawing
    assert "query 2 \u2018c\u2019 → key 1 \u2018b\u2019: 1.00" in drawing
    assert "query 0 \u2018a\u2019 → nothing" in drawing


def test_attention_names_each_size_that_disagrees() -> None:
    with pytest.raises(InputError, match="patterns has 3 queries and 3 keys for each head, but 2 tokens were given"):
        attention(np.zeros((1, 3, 3)), ["a", "b"], ["h"])
    with pytest.raises(InputError, match="titles holds 2 labels, but the head axis has 1 places"):
        attention(np.zeros((1, 1, 1)), ["a"], ["h", "i"])
    with pytest.raises(InputError, match=r"3 axes \(head, query, key\); the array given has shape \(3, 3\)"):
        attention(np.zeros((3, 3)), ["a"] * 3, ["h"])
    with pytest.raises(InputError, match=r"goes down to -0.5; draw signed values with `heatmap`"):
        attention(np.full((1, 1, 1), -0.5), ["a"], ["h"])
    with pytest.raises(InputError, match="at most 256 can be drawn"):
        attention(np.zeros((1, 257, 257)), ["a"] * 257, ["h"])


@pytest.mark.parametrize(
    "call",
    [
        lambda: attention(np.zeros((0, 2, 2)), ["a", "b"], []),
        lambda: attention(np.zeros((1, 0, 0)), [], ["h"]),
        lambda: bars([], np.array([])),
        lambda: heatmap(np.zeros((0, 3)), [], ["a"] * 3, "t"),
        lambda: tokens([], np.array([])),
        lambda: recovered([]),
        lambda: table([], []),
        lambda: page("t", []),
    ],
)
def test_nothing_to_draw_is_an_error(call: Any) -> None:
    with pytest.raises(InputError, match=r"empty|given no|0 tokens"):
        call()


def test_other_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="rows holds 1 labels, but the row axis has 2 places"):
        heatmap(np.zeros((2, 1)), ["a"], ["b"], "t")
    with pytest.raises(InputError, match="goes down to -1, but signed=False"):
        heatmap(np.array([[-1.0]]), ["a"], ["b"], "t", signed=False)
    with pytest.raises(InputError, match="real numbers; the array given has dtype complex128"):
        heatmap(np.array([[1j]]), ["a"], ["b"], "t")
    with pytest.raises(InputError, match="errors holds 2 numbers for 1 values"):
        bars(["a"], np.array([1.0]), np.array([1.0, 2.0]))
    with pytest.raises(InputError, match="one string was given: 'ab'"):
        tokens("ab", np.zeros(2))
    with pytest.raises(InputError, match=r"runs from 0.9 to 0.1; give the lower end first"):
        row(low=0.9, high=0.1)
    with pytest.raises(InputError, match="Row 1 has 1 cells, but there are 2 headers"):
        table(["a", "b"], [["x", 1], ["y"]])
    with pytest.raises(InputError, match="one of l, r, c for each of 1 columns; 'lr' was given"):
        table(["a"], [], "lr")
    with pytest.raises(InputError, match=r"holds Markup made by scrubjay\.viz; a str was given"):
        Figure("<svg/>")  # pyright: ignore[reportArgumentType]
    deep = Branch("leaf")
    for _ in range(5000):
        deep = Branch("node", children=(deep,))
    with pytest.raises(InputError, match="more than 40 levels"):
        tree(deep)


@given(values=st.lists(anything, min_size=1, max_size=6))
def test_any_numbers_make_well_formed_figures(values: list[float]) -> None:
    array = np.array(values)
    names = ["n"] * len(values)
    figures = [
        heatmap(array[None], ["r"], names, "t"),
        bars(names, array, np.abs(array), reference_lines={"here": 1.0}),
        tokens(names, array),
        table(["v"], [[value] for value in values]),
        recovered([row(recovered=value, low=-math.inf, high=math.inf, constant=value) for value in values]),
        recovered([row(original=value, floor=value, scrubbed=value, standard_error=abs(value)) for value in values]),
        attention(np.abs(array)[:, None, None], ["a"], names),
    ]
    for figure in figures:
        ET.fromstring(figure)
        assert not re.search(r'="[^"]*\b(nan|inf)\b[^"]*"', figure)


def test_missing_values_are_hatched_and_said() -> None:
    array = np.array([[math.nan, 1.0]])
    assert "r, a: no value" in heatmap(array, ["r"], ["a", "b"], "t")
    assert 'class="sj-hatch"' in heatmap(array, ["r"], ["a", "b"], "t")
    assert "sj-missing" in tokens(["a", "b"], array[0])
    assert 'aria-label="a: no value"' in bars(["a", "b"], array[0])
    assert 'stroke-width="0.12"' in attention(array[None].repeat(2, axis=1), ["a", "b"], ["h"])


def test_zero_is_exactly_white_and_the_signs_mirror() -> None:
    assert colour.signed(0.0, 3.0) == colour.signed(-0.0, 0.0) == "#ffffff"
    assert 'fill="#ffffff"' in heatmap(np.array([[0.0, 5.0]]), ["r"], ["a", "b"], "t")
    blue, red = colour.signed(-2.0, 3.0), colour.signed(2.0, 3.0)
    assert int(blue[5:7], 16) > int(blue[1:3], 16)
    assert int(red[1:3], 16) > int(red[5:7], 16)


@given(value=st.floats(-1, 1))
def test_text_on_any_colour_can_be_read(value: float) -> None:
    background = colour.signed(value, 1.0)
    light, dark = sorted((colour._luminance(background), colour._luminance(colour.ink(background))), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.0


def test_recovered_shows_values_outside_zero_and_one_where_they_are() -> None:
    near = recovered([row(recovered=-0.31, low=-0.5, high=-0.1), row(recovered=1.2, low=1.1, high=1.3)])
    far = recovered([row(recovered=-40.0, low=-41.0, high=-39.0)])
    assert near.count('class="sj-dot"') == 3  # one for each row, one in the key
    assert 'class="sj-break"' not in near
    assert far.count('class="sj-break"') == 1
    assert far.count('class="sj-dot"') == 1
    assert "−40.00 ± 0.02" in far  # noqa: RUF001


def test_recovered_places_the_constant_predictor() -> None:
    assert row(original=1.0, floor=5.0, constant=2.0).constant_recovered() == 0.75
    assert math.isnan(row(original=2.0, floor=2.0).constant_recovered())
    assert "sj-constant" not in recovered([row(constant=math.nan)])
    assert "best constant predictor" in recovered([row()])


def test_small_errors_are_not_written_as_zero() -> None:
    assert "0.900 ± 0.004" in recovered([row(standard_error=0.004)])
    assert "± &lt;0.001" in recovered([row(standard_error=0.0001)])


def test_table_aligns_numbers_to_the_right() -> None:
    whole = table(["name", "n"], [["a", 12], ["b", None]])
    assert '<th scope="col" class="sj-number">n</th>' in whole
    assert '<td class="sj-number">12</td>' in whole


def test_page_numbers_sections_and_figures_in_order() -> None:
    figure = Figure(table(["a"], [["x"]]), "caption")
    html = page("Title", [Section("One", "Found.", (figure, "First.\n\nSecond.")), Section("Two", body=(figure,))])
    assert re.findall(r"Figure \d", html) == ["Figure 1", "Figure 2"]
    assert '<a href="#section-2">' in html
    assert '<section id="section-2">' in html
    assert "<p>First.</p><p>Second.</p>" in html


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_round_few_and_inside(low: float, width: float) -> None:
    axis = Axis(low, low + width)
    ticks = axis.ticks()
    assert len(ticks) <= 6
    assert all(-1e-6 <= axis.percent(tick) <= 100 + 1e-6 for tick in ticks)


def test_an_axis_holds_what_it_is_told_to() -> None:
    assert spanning([math.nan, math.inf, 2.0], margin=0.0) == Axis(0.0, 2.0)
    assert spanning([]) == Axis(-0.5, 0.5)
    with pytest.raises(InputError, match="from a smaller to a larger finite number"):
        Axis(1.0, 1.0)


def test_names_of_close_reference_lines_stand_on_different_levels() -> None:
    figure = bars(["a"], np.array([4.0]), reference_lines={"mean of heads": 2.0, "all the heads": 2.2})
    heights = re.findall(r'y="([\d.]+)" text-anchor="middle" class="sj-axis">(?:mean|all)', figure)
    assert len(set(heights)) == 2
