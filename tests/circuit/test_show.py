"""Printed circuits: the form of a small one, and what holds of every one."""

from __future__ import annotations

import re

import pytest

from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit, is_note
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import KINDS as NODE_KINDS
from scrubjay.circuit.ops import Add, Along, Constant, Einsum, Gather, Index, Input, Map, Multiply, Relabel, Weight
from scrubjay.circuit.printing.table import show
from scrubjay.circuit.printing.words import WORDS
from scrubjay.errors import AddressError
from small_models import KINDS, captured

BATCH, QUERY, MODEL, VOCAB = Axis("batch", "batch"), Axis("query", "query"), Axis("model", 4), Axis("vocab", 7)
HIDDEN = Axis("hidden", 8)


def layered(layers: int, *, odd: int | None = None) -> Circuit:
    """A stream of `layers` linear layers, of which `odd` has another activation."""
    ids = Input("input_ids", (BATCH, QUERY), "int64")
    table: dict[str, Node] = {"in.input_ids": ids}
    stream: Node = Gather(Weight("model", "embed.weight", ((VOCAB,), (MODEL,))), "vocab", ids)
    table["embed"] = stream
    for layer in range(layers):
        table[f"L{layer}.resid_pre"] = stream
        up = Weight("model", f"blocks.{layer}.up", ((HIDDEN,), (MODEL,)))
        down = Weight("model", f"blocks.{layer}.down", ((MODEL,), (HIDDEN,)))
        post = Map("gelu" if layer == odd else "relu", (Einsum((stream, up), ("model",)),))
        table[f"L{layer}.mlp.post"] = post
        stream = Add((stream, Einsum((post, down), ("hidden",))))
        table[f"L{layer}.resid_post"] = stream
    table["logits"] = Einsum((stream, Weight("model", "unembed.weight", ((VOCAB,), (MODEL,)))), ("model",))
    return Circuit({"logits": table["logits"]}, table)


def attention() -> Circuit:
    x = Input("x", (QUERY, MODEL))
    scores = Einsum((x, Relabel(x, (("query", "key"),))), ("model",))
    square = Multiply((scores, scores))
    return Circuit(
        {"output": Along("softmax", Add((square, Map("cast", (scores,), ("float32",)), Constant(0.5))), ("key",))},
        {"in.x": x},
    )


def chain(length: int) -> Circuit:
    node: Node = Input("x", (MODEL,))
    for _ in range(length):
        node = Map("relu", (node,))
    return Circuit({"output": node})


LAYERED = """\
logits: 17 nodes, 6 weights, 9 addresses (· stands for the lines indented below)

logits         [batch query vocab=7]   einsum "batch query model, vocab model -> batch query vocab" of L1.resid_post,
                                       unembed.weight

L1: as L0, with weights of its own

L0
L0.resid_post  [batch query model=4]   L0.resid_pre + ·  (also L1.resid_pre)
  ·            [batch query model=4]   einsum "batch query hidden, model hidden -> batch query model" of L0.mlp.post,
                                       blocks.0.down
L0.mlp.post    [batch query hidden=8]  relu(·)
  ·            [batch query hidden=8]  einsum "batch query model, hidden model -> batch query hidden" of L0.resid_pre,
                                       blocks.0.up

what the layers read
embed          [batch query model=4]   gather vocab of embed.weight at in.input_ids  (also L0.resid_pre)
in.input_ids   [batch query]           input input_ids, int64"""

ATTENTION = """\
output: 8 nodes, 0 weights, 2 addresses (· stands for the lines indented below)

output     [query key=query]    softmax over key of ·
  ·        [query key=query]    · + · + 0.5
    ·      [query key=query]    #1 * #1
      #1   [query key=query]    einsum "query model, key model -> query key" of in.x, ·
        ·  [key=query model=4]  in.x with query as key
    ·      [query key=query]    #1 as float32
in.x       [query model=4]      input x, model"""


def test_layered_form() -> None:
    assert show(layered(2)) == LAYERED


def test_form_of_shared_values() -> None:
    assert show(attention()) == ATTENTION


def test_str_of_a_circuit_is_its_print() -> None:
    assert str(attention()) == ATTENTION
    assert repr(attention()) == "<Circuit output: 8 nodes, 1 addresses>"


def test_every_kind_of_node_has_words() -> None:
    assert set(WORDS) == set(NODE_KINDS)


def test_a_layer_of_another_structure_is_printed_in_full() -> None:
    lines = show(layered(6, odd=3)).splitlines()
    assert "L4..L5: as L0, with weights of their own" in lines
    assert "L3" in lines
    assert "L1..L2: as L0, with weights of their own" in lines
    assert sum("gelu(" in line for line in lines) == sum("relu(" in line for line in lines) == 1


def test_layers_that_share_a_weight_otherwise_are_not_alike() -> None:
    """In L0 up and down are two weights; in L1 one weight is both."""
    x = Input("x", (MODEL,))
    table: dict[str, Node] = {"L0.resid_pre": x}
    one = Weight("model", "a.0", ((MODEL,),))
    table["L0.resid_post"] = middle = Add((Multiply((x, one)), Weight("model", "b.0", ((MODEL,),))))
    table["L1.resid_pre"] = middle
    both = Weight("model", "a.1", ((MODEL,),))
    table["L1.resid_post"] = Add((Multiply((middle, both)), both))
    assert "as L0" not in show(Circuit({"output": table["L1.resid_post"]}, table))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_every_address_is_printed_or_covered_and_no_line_is_too_wide(kind: str, width: int) -> None:
    circuit = captured(kind)[1].circuit
    text = show(circuit, width=width, most=10_000)
    assert max(map(len, text.splitlines())) <= width
    covered = {
        number
        for low, high in re.findall(r"^L(\d+)(?:\.\.L(\d+))?: as L\d+", text, re.M)
        for number in range(int(low), int(high or low) + 1)
    }
    flat = re.sub(r"\s+", "", text)
    for address, node in circuit.table.items():
        if is_note(address):
            assert address not in flat
            continue
        layers = {
            int(found[1])
            for name, other in circuit.table.items()
            if other is node and (found := re.match(r"L(\d+)\.", name))
        }
        inside = any(re.search(rf"\.{number}(\.|$)", address) for number in covered)
        assert address in flat or layers & covered or inside, address


def test_a_model_of_twelve_layers_is_a_page() -> None:
    assert len(show(layered(12)).splitlines()) == len(LAYERED.splitlines())


def test_a_rewritten_circuit_prints_its_history_and_what_is_cut_off() -> None:
    circuit = layered(2)
    text = show(circuit.rewrite({circuit.node("L1.resid_pre"): Constant(0.0)}, "the first layer is nothing"))
    assert "; after the first layer is nothing" in " ".join(text.split())
    # the address of the replaced value goes with the replacement
    assert "\nL0.resid_post" in text
    gone = " ".join(text.split("\n\n")[-1].split())
    assert gone.endswith(
        "no result depends any more, since the first layer is nothing, on: in.input_ids, embed, L0.resid_pre, L0.mlp.post"
    )
    assert text.count("L0.mlp.post") == 1


def test_focus_and_depth() -> None:
    text = show(layered(3), focus="L1.resid_post", depth=1)
    assert text.startswith("L1.resid_post: 4 nodes, 1 weight, 4 addresses")
    assert "L1.resid_pre + ·" in text
    assert "of …, blocks" not in text
    assert "gather" not in text
    assert text.endswith("more nodes at a greater depth")
    assert show(layered(3), focus="logits") == show(layered(3))


def heads(count: int, *, odd: int | None = None) -> Circuit:
    """A sum of what each head writes, taken out of the whole by its place."""
    z, w = (
        Input("z", (QUERY, Axis("head", count), MODEL)),
        Weight("model", "w", ((Axis("head", count),), (MODEL,), (HIDDEN,))),
    )
    terms = (
        Einsum((Index(z, "head", -1 if place == odd else place), Index(w, "head", place)), ("model",))
        for place in range(count)
    )
    return Circuit({"output": Add(tuple(terms))}, {"L0.attn.z": z})


def test_heads_that_differ_in_their_place_alone_are_printed_once() -> None:
    lines = show(heads(12)).splitlines()
    assert sum("einsum" in line for line in lines) == 1
    assert any(line.endswith("11 more alike, at head 1..11") for line in lines)
    assert "head 0" in show(heads(12))


def test_heads_that_differ_otherwise_are_printed() -> None:
    text = show(heads(12, odd=11))
    assert "10 more alike, at head 1..10" in text
    assert text.count("einsum") == 2
    assert "in.z at head -1" in text or "L0.attn.z at head -1" in text
    assert "more alike" not in show(heads(2))
    assert "at head 1\n" in show(heads(2)) + "\n"


def test_unknown_focus_names_near_addresses() -> None:
    with pytest.raises(
        AddressError, match=r"L1\.resid_pos: no such place in this circuit; did you mean L1\.resid_post"
    ):
        show(layered(2), focus="L1.resid_pos")


def test_a_chain_of_fifty_thousand_nodes_is_limited_or_printed_whole() -> None:
    circuit = chain(50_000)
    assert show(circuit).endswith("49,501 more nodes not printed: narrow it with focus= and depth=, or raise most=")
    lines = show(circuit, most=100_000).splitlines()
    assert len(lines) == 50_003
    assert max(map(len, lines)) <= 120
