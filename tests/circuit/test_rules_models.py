"""Equalities on captured models: heads split, logits by source, QK and OV factored; the value is the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.address import parse
from scrubjay.circuit.axes import Axis
from scrubjay.circuit.circuit import Circuit
from scrubjay.circuit.match import find
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Along, Einsum, Index, Input, Map, Multiply, Weight
from scrubjay.circuit.rules.algebra import WEIGHTS_FIRST
from scrubjay.circuit.rules.approximation import approximate, frozen_scale, is_scale
from scrubjay.circuit.rules.attention import FACTOR_OV, FACTOR_QK, split_qkv
from scrubjay.circuit.rules.distribution import FACTOR
from scrubjay.circuit.rules.facts import reads_input
from scrubjay.circuit.rules.joining import PULL_CONCAT, in_chunks, split_to_concat
from scrubjay.circuit.rules.norms import EXPAND_NORM, FOLD_NORM, fold_norms
from scrubjay.circuit.rules.places import MERGE_PLACES, split_heads, split_place, split_stretches
from scrubjay.circuit.rules.projection import estimate, project
from scrubjay.circuit.rules.rewriting import explain, rewrite, rules_applied
from scrubjay.circuit.rules.simplify import simplify
from scrubjay.circuit.rules.sources import by_source, expand_residual, sources
from scrubjay.circuit.rules.taking import PUSH_TAKE
from scrubjay.circuit.rules.turning import cores, is_projection
from scrubjay.engine import evaluate
from scrubjay.engine.context import Payload
from scrubjay.errors import CircuitError
from small_models import HEADS, KINDS, LAYERS, batch, captured

every_kind = pytest.mark.parametrize("kind", KINDS)


def exact(kind: str) -> tuple[Model, Circuit]:
    model = captured(kind)[1].exact()
    return model, model.circuit


def values(model: Model, nodes: Sequence[Node], **more: torch.Tensor) -> list[torch.Tensor]:
    stores = {**model.stores, "test": Payload(more, {})}
    made = evaluate(nodes, {**batch(2, 9, padding="left"), **more}, stores, dtype=torch.float64)
    return [torch.as_tensor(made[node].laid([axis.name for axis in node.axes])).detach() for node in nodes]


def check(model: Model, circuit: Circuit, made: Circuit, **more: torch.Tensor) -> None:
    """The two circuits give the same logits, and so do the addresses of both."""
    for name, root in circuit.roots.items():
        assert made.roots[name].axes == root.axes
        old, new = values(model, [root], **more)[0], values(model, [made.roots[name]], **more)[0]
        assert float((old - new).abs().max() / old.abs().max()) < 1e-10
    sites = [
        address
        for address in made.table
        if address.startswith("L1.") and address in circuit.table and not address.rpartition(".")[2].startswith("_")
    ]
    assert sites
    old_sites = values(model, [circuit.table[site] for site in sites], **more)
    new_sites = values(model, [made.table[site] for site in sites], **more)
    for one, two in zip(old_sites, new_sites, strict=True):
        torch.testing.assert_close(one.double(), two.double(), rtol=1e-9, atol=1e-9)


@every_kind
def test_heads_are_split_and_merged_back(kind: str) -> None:
    model, circuit = exact(kind)
    made = split_heads(circuit)
    check(model, circuit, made)
    terms = {
        node
        for node in made.nodes
        if isinstance(node, Einsum)
        and node.summed == ("d_head",)
        and "query" in node.axis_names
        and "key" not in node.axis_names
    }
    assert len(terms) == LAYERS * HEADS
    assert "split_places" in rules_applied(made)
    back = rewrite(made, MERGE_PLACES)
    assert back.roots == circuit.roots


@every_kind
def test_heads_that_were_split_off_have_addresses(kind: str) -> None:
    """Their terms are the model's own heads; they can be matched, and an intervention there does what it does unsplit."""
    model, circuit = exact(kind)
    split = split_heads(circuit)
    for layer in range(LAYERS):
        addresses = [f"L{layer}.H{head}.out" for head in range(HEADS)]
        own = [model.node(parse(address)) for address in addresses]
        for one, two in zip(values(model, own), values(model, [split.table[at] for at in addresses]), strict=True):
            torch.testing.assert_close(two, one, rtol=0, atol=1e-12)
    assert len(find(split, "L1.H2.out")) == 1
    change = [sj.zero("L1.H2.out")]
    inputs = batch(2, 9, padding="left")
    one, two = (sj.run(made, inputs, interventions=change).logits for made in (model, replace(model, circuit=split)))
    torch.testing.assert_close(two, one, rtol=0, atol=1e-10)
    assert float((one - sj.run(model, inputs).logits).abs().max()) > 1e-3


@every_kind
def test_one_head_is_split_from_the_rest_and_reads_its_own_weights(kind: str) -> None:
    model, circuit = exact(kind)
    axis = "kv" if kind == "llama" else "head"
    places = [node for node in circuit.nodes if isinstance(node, Einsum) and axis in node.summed]
    made = rewrite(circuit, split_place(axis, 1), where=places[:1])
    check(model, circuit, made)
    alone = rewrite(made, PUSH_TAKE, where=lambda node: isinstance(node, Index) and node.axis == axis)
    check(model, circuit, alone)
    taken = [node.source for node in alone.nodes if isinstance(node, Index) and node.axis == axis]
    assert taken
    assert all(isinstance(source, Weight) for source in taken if not isinstance(source, Index))


@every_kind
def test_attention_is_split_by_position(kind: str) -> None:
    model, circuit = exact(kind)
    mixes = [node for node in circuit.nodes if isinstance(node, Einsum) and node.summed == ("key",)]
    made = rewrite(circuit, split_stretches("key", (1, 3, "query - 4")), where=mixes)
    assert rules_applied(made) == {"split_stretches": LAYERS}
    check(model, circuit, made)


@every_kind
def test_the_logits_are_expanded_by_source_and_merged_back(kind: str) -> None:
    model, circuit = exact(kind)
    last = [node for node in circuit.nodes if isinstance(node, Einsum) and "vocab" in node.axis_names]
    if kind == "bert":  # the unembedding reads an activation: the linear map below it reads the stream
        last = [
            node
            for node in circuit.nodes
            if isinstance(node, Einsum) and "cls.predictions.transform.dense.weight.0" in node.axis_names
        ][:1]
    made = rewrite(circuit, by_source(), where=last)
    check(model, circuit, made)
    (place,) = last
    found = sources(place.factors[0])
    # embeddings (bert: also token types), then attention and MLP of each layer, each with a bias of its own but for llama
    embeds = {"gpt2": 2, "llama": 1, "bert": 3}[kind]
    norms = {"gpt2": 1, "llama": 0, "bert": 1 + 2 * LAYERS}[kind]
    writes = LAYERS * (2 if kind == "llama" else 4)
    assert len(found) == embeds + writes + norms
    back = rewrite(made, FACTOR)
    assert rules_applied(back)["factor"] > 0
    check(model, circuit, back)
    assert len(back.nodes) < len(made.nodes)


@every_kind
def test_heads_and_sources_together_give_one_term_for_each_head(kind: str) -> None:
    model, circuit = exact(kind)
    split = split_heads(circuit)
    readers = [node for node in split.nodes if isinstance(node, Einsum) and "hidden" in node.axis_names]
    made = rewrite(split, by_source(), where=readers[-1:])
    check(model, circuit, made)
    terms = sources(readers[-1].factors[0])
    # a post-norm model goes on below its norms; all heads of all layers are there
    assert sum(isinstance(term, Einsum | Multiply | Map) for term in terms) >= LAYERS * HEADS


@every_kind
def test_ov_is_one_contraction_with_both_weights(kind: str) -> None:
    model, circuit = exact(kind)
    outputs = [node for node in circuit.nodes if isinstance(node, Einsum) and FACTOR_OV.apply(node) is not None]
    assert len(outputs) == LAYERS
    made = rewrite(circuit, FACTOR_OV, where=outputs)
    check(model, circuit, made)
    assert set(made.removed) >= {f"L{layer}.attn.z" for layer in range(LAYERS)}
    factored = [node for node in made.nodes if isinstance(node, Einsum) and len(node.factors) == 4]
    assert len(factored) == LAYERS
    assert all(sum(not reads_input(one) for one in node.factors) == 2 for node in factored)
    multiplied = rewrite(made, WEIGHTS_FIRST, where=factored)
    check(model, circuit, multiplied)


def scores_of(circuit: Circuit) -> list[Node]:
    return [
        node
        for node in circuit.nodes
        if isinstance(node, Einsum) and {"query", "key"} <= node.axis_names and node.summed == ("d_head",)
    ]


@every_kind
def test_qk_is_one_contraction_with_the_rotation_as_factors(kind: str) -> None:
    model, circuit = exact(kind)
    scores = scores_of(circuit)
    assert len(scores) == LAYERS
    made = rewrite(circuit, FACTOR_QK, where=scores)
    check(model, circuit, made)
    factors = 6 if kind == "llama" else 4  # llama turns queries and keys: a matrix for each position of each
    factored = [node for node in made.nodes if isinstance(node, Einsum) and len(node.factors) == factors]
    assert len(factored) == LAYERS
    assert all(sum(not reads_input(one) for one in node.factors) == 2 for node in factored)


@every_kind
def test_queries_and_keys_are_split_by_source_within_scores(kind: str) -> None:
    """In a rotary model each source has one term, though the embedding of positions reads it twice."""
    model, circuit = exact(kind)
    (read, keyed) = (circuit.table["L1.attn.q_rot"], circuit.table["L1.attn.k_rot"])
    below = [one for one in circuit.nodes if is_projection(one) and feeds(one, (read, keyed))]
    split = rewrite(circuit, by_source(), where=below)
    one = rewrite(split, by_source(0), where=scores_of(split)[-1:])
    made = rewrite(one, by_source(1), where=set(scores_of(one)) - set(scores_of(split)))
    check(model, circuit, made)
    assert len(sources(split.table["L1.attn.q_rot"])) == SOURCES[kind]


SOURCES = {"gpt2": 8, "llama": 3, "bert": 11}
"""Of what attention in the second layer reads: embeddings, attention, the MLP, biases one by one."""


def feeds(node: Node, readers: Sequence[Node]) -> bool:
    """Tell whether a projection is the queries or keys of readers, through what is linear."""
    return any(
        node in cores(one) or (isinstance(cores(one).get(one), Add) and node in cores(one)[one].operands)
        for one in readers
    )


@every_kind
def test_queries_keys_and_values_read_weights_of_their_own(kind: str) -> None:
    model, circuit = exact(kind)
    if kind != "gpt2":
        with pytest.raises(CircuitError, match="no node of the circuit was asked for"):
            split_qkv(circuit)
        return
    made = split_qkv(circuit)
    check(model, circuit, made)
    assert not any("qkv" in node.axis_names for node in made.nodes if reads_input(node))
    assert sum(isinstance(node, Index) and node.axis == "qkv" for node in made.nodes) == 2 * 3 * LAYERS


@every_kind
def test_norms_are_written_out_folded_back_and_folded_away(kind: str) -> None:
    model, circuit = exact(kind)
    folded = rewrite(circuit, FOLD_NORM) if kind == "llama" else circuit
    assert sum(isinstance(node, Along) and node.op == "rms" for node in folded.nodes) >= 2 * LAYERS + 1
    check(model, circuit, folded)
    written = rewrite(folded, EXPAND_NORM)
    assert not any(isinstance(node, Along) and node.op in {"rms", "center"} for node in written.nodes)
    check(model, circuit, written)
    back = rewrite(written, FOLD_NORM)
    assert back.roots == folded.roots
    free = fold_norms(circuit)
    check(model, circuit, free)
    assert rules_applied(free)["fold_scale"] >= LAYERS


@every_kind
def test_a_stream_is_its_projection_and_the_rest(kind: str) -> None:
    model, circuit = exact(kind)
    basis = Weight("test", "basis", ((Axis("model", 32),), (Axis("direction", 2),)))
    made = rewrite(circuit, project(basis), where=[circuit.table["L1.resid_pre"]])
    assert any(node is basis for node in made.nodes)
    check(model, circuit, made, basis=torch.linalg.qr(torch.randn(32, 2, dtype=torch.float64))[0])


@every_kind
def test_a_stream_is_an_estimate_and_what_it_misses(kind: str) -> None:
    model, circuit = exact(kind)
    mean = Weight("test", "mean", ((Axis("model", 32),),))
    made = rewrite(circuit, estimate(mean), where=[circuit.table["L1.resid_pre"]])
    check(model, circuit, made, mean=torch.randn(32, dtype=torch.float64))


@every_kind
def test_all_that_linear_maps_read_is_expanded_with_heads_split(kind: str) -> None:
    model, circuit = exact(kind)
    made = expand_residual(split_heads(circuit))
    check(model, circuit, made)
    assert rules_applied(made)["by_source"] > 2 * LAYERS


@every_kind
def test_a_stream_is_cut_into_stretches_of_positions(kind: str) -> None:
    model, circuit = exact(kind)
    made = rewrite(circuit, split_to_concat("query", (2, "query - 2")), where=[circuit.table["L1.resid_pre"]])
    check(model, circuit, made)
    pulled = rewrite(made, PULL_CONCAT)
    check(model, circuit, pulled)
    assert rules_applied(pulled)["pull_concat"] > 3


@every_kind
def test_norms_are_folded_after_heads_are_split_and_expanded(kind: str) -> None:
    """One rewrite after another, as a user would: the value stays through all of them."""
    model, circuit = exact(kind)
    made = simplify(fold_norms(split_heads(circuit)))
    check(model, circuit, made)
    assert {"split_places", "fold_scale"} <= set(rules_applied(made))


@every_kind
def test_a_model_is_simplified_and_run_in_chunks(kind: str) -> None:
    model, circuit = exact(kind)
    made = simplify(circuit)
    check(model, circuit, made)
    assert simplify(made).roots == made.roots
    chunks = in_chunks(circuit, "batch", (1, "batch - 1"))
    check(model, circuit, chunks)
    root = chunks.roots["logits"]
    assert type(root).__name__ == "Concat"


@every_kind
def test_a_frozen_scale_is_an_approximation_and_no_equality(kind: str) -> None:
    model, circuit = exact(kind)
    approximation = frozen_scale()
    place = circuit.table["L1.ln2.scale"]
    assert is_scale(place)
    with pytest.raises(CircuitError, match="no equality"):
        rewrite(circuit, approximation)  # type: ignore[arg-type]
    made = approximate(circuit, approximation, [place])
    assert explain(made).splitlines()[-1].split(". ", 1)[1].startswith("approximation: frozen_scale x1")
    (scale, before) = values(model, [place, circuit.roots["logits"]])
    frozen = {"frozen scale": scale}
    inputs = {**batch(2, 9, padding="left"), **frozen}

    def logits(scale_given: torch.Tensor) -> torch.Tensor:
        run = evaluate(
            [made.roots["logits"]], {**inputs, "frozen scale": scale_given}, model.stores, dtype=torch.float64
        )
        return torch.as_tensor(
            run[made.roots["logits"]].laid([axis.name for axis in made.roots["logits"].axes])
        ).detach()

    torch.testing.assert_close(logits(scale), before, rtol=1e-9, atol=1e-9)
    assert float((logits(2 * scale) - before).abs().max()) > 1e-3
    assert any(isinstance(node, Input) and node.name == "frozen scale" for node in made.nodes)
    assert not isinstance(made.roots["logits"], Add) or kind == "bert"
