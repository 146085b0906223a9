"""A scrub by force: every path of a small transformer followed one by one, one sample at a time, with no circuit.

A component (a head, an MLP) as it is seen through the components behind it, down to the reader, is a value of its own; a claim's
value takes the place of its site on those ways that its `via` names. What `via` means is stated once more here, as a test of a way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scrubjay as sj
from scrubjay.circuit.address import Head, Range
from scrubjay.claims.claim import Claim, input_name
from scrubjay.claims.data import Dataset

Component = tuple[int, str]
Way = tuple[Component, ...]
"""Components from a site to the reader, the last one first; the reader's own is none of them."""


def allows(via: str, way: Way) -> bool:
    """Tell whether paths of this `via` may go this way."""
    names = [f"L{layer}.{part}.out" for layer, part in way]
    if via in {"all", "direct"}:
        return via == "all" or not way
    text, straight = via.removeprefix("direct or "), via.startswith("direct or ")
    through, _, avoiding = text.partition("avoiding")
    if any(name in avoiding for name in names):
        return False
    if not through:
        return True
    inside = all(name in through or ("H*" in through and ".H" in name and name[:2] in through) for name in names)
    return inside and (straight or bool(way))


@dataclass
class Forced:
    """Runs a module for one sample of an index table; `others` as the hypothesis says."""

    module: Any
    data: Dataset
    hypothesis: sj.Hypothesis
    table: dict[str, np.ndarray]
    sample: int
    memo: dict[Any, Tensor] = field(default_factory=dict)

    # data

    def place(self, row: int, position: int) -> int:
        return int(np.flatnonzero(self.data.inputs["attention_mask"][row])[position])

    def drawn(self, name: str, place: int | None) -> int:
        column = self.table[name][self.sample]
        return int(column if column.ndim == 0 else column[place])

    def check_agrees(self, claim: Claim, new: int, ref: int, place: int | None) -> None:
        assert claim.feature is not None
        values = self.hypothesis.feature(claim.feature, self.data).values
        if values.ndim == 1:
            assert values[new] == values[ref]
            return
        position = claim.site.position.at if claim.site.position is not None else None
        if isinstance(position, int):
            assert values[new, self.place(new, position)] == values[ref, self.place(ref, position)]
        else:
            assert values[new, place] == values[ref, place]

    # the recursion

    def run(self, claim: Claim, ref: int, place: int | None = None) -> Tensor:
        """A value of the claim's site (query, ...), or what its part is, for the datum `ref`."""
        other = self.other(claim, ref, place)
        reads = [(child, self.child(child, ref, place)) for child in claim.reads]
        return _Reader(self, claim, other, reads, place).value()

    def other(self, claim: Claim, ref: int, place: int | None) -> int:
        """The row of all that no claim is about."""
        if not claim.reads:
            return ref
        others = self.hypothesis.others if claim.others is None else claim.others
        if others == "exact":
            return ref
        new = self.drawn("other" if others == "global" else f"{claim.name}/other", place)
        if isinstance(others, int):
            assert new == others
        elif others not in {"node", "parent", "global"}:
            values = self.data.feature(others).values
            assert values[new] == values[ref]
        return new

    def child(self, claim: Claim, ref: int, place: int | None) -> Tensor:
        """The value of a claim below: for its own datum, or for one datum at each place."""
        if not claim.each:
            return self.run(claim, self.datum(claim, ref, place), place)
        size = self.data.inputs["input_ids"].shape[1]
        values = [self.run(claim, self.datum(claim, ref, at), at)[at] for at in range(size)]
        return torch.stack(values)

    def datum(self, claim: Claim, ref: int, place: int | None) -> int:
        if claim.feature == "exact":
            return ref
        new = self.drawn(claim.name, place)
        if claim.feature is not None:
            self.check_agrees(claim, new, ref, place)
        return new

    def part(self, spoken: str, value: Tensor, row: int) -> Tensor:
        """The part of a value that a claim is about."""
        part = self.hypothesis.part(spoken)
        vectors = torch.from_numpy(part.vectors)
        if part.columns:
            found = torch.from_numpy(part.offset).clone()
            for name, vector in zip(part.columns, vectors, strict=True):
                column = self.hypothesis.feature(name, self.data).values[row]
                found = found + torch.from_numpy(np.array(column, np.float64))[..., None] * vector
            found = found.expand(value.shape)
        else:
            found = value @ vectors.T @ vectors
        return value - found if part.remains else found


@dataclass
class _Reader:
    """One claim's value on a row, the values of the claims below it in their places."""

    forced: Forced
    claim: Claim
    row: int
    reads: list[tuple[Claim, Tensor]]
    place: int | None
    memo: dict[Any, Tensor] = field(default_factory=dict)

    def value(self) -> Tensor:
        """The reader's value at its position, or (query, ...)."""
        claim = self.claim
        value = self.site()
        if claim.part is not None:
            value = self.forced.part(claim.part, value, self.row)
        position = claim.site.position.at if claim.site.position is not None else None
        if isinstance(position, int):
            value = value[self.forced.place(self.row, position)]
        return value

    def site(self) -> Tensor:
        """The value of the reader's site at all positions."""
        claim, module = self.claim, self.forced.module
        if (name := input_name(claim.site)) in self.forced.data.inputs:
            return torch.from_numpy(np.array(self.forced.data.inputs[str(name)][self.row]))
        layer = claim.site.layer
        if layer is None and claim.site.site == "embed":
            return self.embed((), self.row)
        if layer is None:
            return module.unembed(module.ln_f(self.stream(module.config.layers, (), mid=False)))
        assert isinstance(layer, int)
        if claim.site.site.endswith("_in"):
            return self.stream(layer, (), mid=False)
        if isinstance(claim.site.part, Head):
            return self.written((layer, f"H{claim.site.part.index}"), (), own=True)
        if claim.site.site == "mlp.out":
            return self.written((layer, "mlp"), (), own=True)
        assert claim.site.site == "resid_pre"
        return self.stream(layer, (), mid=False)

    def others_row(self, name: str) -> int:
        """The row of one thing that the reader reads itself: its own, where each has one."""
        others = self.forced.hypothesis.others if self.claim.others is None else self.claim.others
        if others != "parent" or not self.claim.reads:
            return self.row
        key = f"{self.claim.name}/other/{name}"
        return self.forced.drawn(key, self.place) if key in self.forced.table else self.row

    def placed(self, name: str, value: Tensor, way: Way, row: int) -> Tensor:
        """A value with those of the claims about it in place that go this way."""
        claims = [(one, new) for one, new in self.reads if _bare(one) == name and allows(one.via, way)]
        parts = [(one, new) for one, new in claims if one.part is not None]
        for one, new in claims:
            if one.part is None:
                value = self.at(one, value, new)
        if parts:
            one = parts[0][0]
            assert one.part is not None
            whole = sum((new for _, new in parts), torch.zeros(()))
            if len(parts) == 1:
                part = self.forced.hypothesis.part(one.part)
                other = part.name if part.remains else part.rest.spoken
                beside = self.forced.part(other, value, row)
                at = one.site.position.at if one.site.position is not None else None
                beside = beside[self.forced.place(self.row, at)] if isinstance(at, int) else beside
                whole = whole + beside
            value = self.at(one, value, whole)
        return value

    def at(self, claim: Claim, old: Tensor, new: Tensor) -> Tensor:
        """The old value with the new one at the claim's positions, counted in the reader's row."""
        if claim.site.position is None:
            return new
        at = claim.site.position.at
        made = old.clone()
        if isinstance(at, Range):
            first, last = (self.forced.place(self.row, end) for end in (at.first, at.last))
            made[first : last + 1] = new[first : last + 1]
        else:
            assert isinstance(at, int)
            made[self.forced.place(self.row, at)] = new
        return made

    # the model, along one way

    def embed(self, way: Way, row: int) -> Tensor:
        ids = torch.from_numpy(np.array(self.forced.data.inputs["input_ids"][row]))
        ids = self.placed("input_ids", ids, way, row)
        return self.placed("embed", self.forced.module.tokens(ids), way, row)

    def stream(self, layer: int, way: Way, *, mid: bool, row: int | None = None) -> Tensor:
        """The stream into a layer (or, with `mid`, into its MLP), as it is seen down a way."""
        key = ("stream", layer, way, mid, row)
        if key not in self.memo:
            module = self.forced.module
            here = self.others_row("L0.resid_pre") if row is None else row
            embedded = self.embed(way, here)
            value = embedded + module.positions(torch.arange(len(embedded)))
            value = self.placed("L0.resid_pre", value, way, self.row if row is None else row)
            for number in range(layer + mid):
                block = module.blocks[number]
                for head in range(module.config.heads):
                    value = value + self.written((number, f"H{head}"), way, row=row)
                value = value + block.attn.o.bias
                if number < layer:
                    value = value + self.written((number, "mlp"), way, row=row)
                    value = self.placed(f"L{number + 1}.resid_pre", value, way, self.row if row is None else row)
            self.memo[key] = value
        return self.memo[key]

    def written(self, component: Component, way: Way, *, own: bool = False, row: int | None = None) -> Tensor:
        """What a component writes, as it is seen down a way; the reader's `own` one is no part of a way."""
        key = ("written", component, way, own, row)
        if key not in self.memo:
            name = f"L{component[0]}.{component[1]}.out"
            if row is None and not own:
                here = self.others_row(name)
                row = here if here != self.row or f"{self.claim.name}/other/{name}" in self.forced.table else None
            inside = way if own else (*way, component)
            value = self.made(component, inside, row)
            self.memo[key] = self.placed(name, value, way, self.row if row is None else row)
        return self.memo[key]

    def made(self, component: Component, way: Way, row: int | None) -> Tensor:
        layer, part = component
        block = self.forced.module.blocks[layer]
        if part == "mlp":
            return block.mlp(block.ln_2(self.stream(layer, way, mid=True, row=row)))
        head, width = int(part[1:]), self.forced.module.config.d_head
        there = slice(head * width, (head + 1) * width)
        stream = self.stream(layer, way, mid=False, row=row)
        q, k, v = (
            getattr(block.attn, one)(block.ln_1(self.placed(f"L{layer}.{part}.{one}_in", stream, way, self.row)))[
                :, there
            ]
            for one in "qkv"
        )
        here = self.others_row("attention_mask") if row is None else row
        mask = torch.from_numpy(np.array(self.forced.data.inputs["attention_mask"][here]))
        mask = self.placed("attention_mask", mask, way, here)
        places = torch.arange(len(mask))
        bias = self.forced.module._mask(mask[None], places, q.dtype)[0, 0]
        return ((q @ k.T / width**0.5 + bias).softmax(-1) @ v) @ block.attn.o.weight[:, there].T


def _bare(claim: Claim) -> str:
    return str(claim.site).partition("@")[0].removeprefix(".")


@torch.no_grad()
def forced(module: Any, data: Dataset, hypothesis: sj.Hypothesis, table: dict[str, np.ndarray]) -> Tensor:
    """The scrubbed results of all samples of an index table, (sample, output)."""
    root = hypothesis.root
    name = "reference" if root.feature == "exact" else root.name
    rows: list[Tensor] = []
    for sample, ref in enumerate(table[name]):
        made: Callable[..., Tensor] = Forced(module, data, hypothesis, table, sample).run
        value = made(root, int(ref))
        rows.append(value if value.dim() == 1 else value[0])
    return torch.stack(rows)
