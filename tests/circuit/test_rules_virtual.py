"""Virtual heads: the terms of a reader along routes through heads sum to it, and each is what the weights by hand give."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import families
import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.circuit.address import parse
from scrubjay.circuit.node import Node
from scrubjay.circuit.ops import Add, Einsum
from scrubjay.circuit.rules.attention import FACTOR_QK
from scrubjay.circuit.rules.facts import reads_input
from scrubjay.circuit.rules.places import split_heads
from scrubjay.circuit.rules.rewriting import explain, rewrite
from scrubjay.circuit.rules.rule import applied
from scrubjay.circuit.rules.virtual import PathTerm, contracted, path_terms, through_heads, virtual_heads
from scrubjay.engine import evaluate
from scrubjay.errors import AddressError, CircuitError
from scrubjay.zoo.transformer import Config, Transformer
from small_models import HEADS, KINDS, LAYERS, batch, captured

every_kind = pytest.mark.parametrize("kind", KINDS)


def values(model: Model, nodes: Sequence[Node], inputs: dict[str, Tensor]) -> list[Tensor]:
    made = evaluate(nodes, inputs, model.stores, dtype=torch.float64)
    return [torch.as_tensor(made[node].laid([axis.name for axis in node.axes])).detach() for node in nodes]


def check_sum(model: Model, reader: str, terms: Sequence[PathTerm], padding: str = "left") -> None:
    """The terms are the reader, as the model's own address gives it."""
    inputs = batch(3, 9, padding=padding)
    own = model.node(parse(reader, model.anatomy.shape)) if reader != "logits" else model.circuit.roots["logits"]
    total = Add(tuple(term.node for term in terms))
    assert total.axes == own.axes
    old, new = values(model, [own, total], inputs)
    seen = old > -1e100 if reader.endswith("scores") else torch.ones_like(old, dtype=torch.bool)
    assert seen.any()
    assert float((old - new)[seen].abs().max() / old[seen].abs().max()) < 1e-10


@every_kind
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("reader", ["logits", "L1.H2.q", "L1.H3.k", "L1.H1.v", "L1.H3.k_rot", "L1.H2.scores"])
def test_terms_sum_to_the_reader(kind: str, reader: str, depth: int) -> None:
    model = captured(kind)[1].exact()
    terms = path_terms(model.circuit, reader, depth)
    assert len({term.name for term in terms}) == len(terms) > 1
    assert max(len(term.heads) for term in terms) <= (2 if "scores" in reader else 1) * depth
    check_sum(model, reader, terms)


def test_a_reader_of_gpt2_has_one_term_for_each_route() -> None:
    circuit = captured("gpt2")[1].circuit
    names = {term.name for term in path_terms(circuit, "L1.H3.k", 1)}
    sources = ("embed", "pos_embed", "biases")
    assert names == {
        *(f"{source} -> L1.H3.k" for source in (*sources, "L0.mlp.out")),
        *(f"{source} -> L0.H{head}.OV -> L1.H3.k" for source in sources for head in range(HEADS)),
    }
    whole = {term.name for term in path_terms(circuit, "L1.H3.k", 0)}
    assert whole == {
        f"{source} -> L1.H3.k" for source in (*sources, "L0.mlp.out", *(f"L0.H{h}.out" for h in range(HEADS)))
    }
    through = path_terms(circuit, "logits", 2, through=["L0.H1", "L1.H2"])
    assert {head for term in through for head in term.heads} == {"L0.H1", "L1.H2"}
    assert "embed -> L0.H1.OV -> L1.H2.OV -> logits" in {term.name for term in through}
    assert "L0.H0.out -> L1.H2.OV -> logits" in {term.name for term in through}


def test_scores_have_terms_for_pairs_of_routes_and_the_mask() -> None:
    circuit = captured("llama")[1].circuit
    with pytest.raises(CircuitError, match=r"rounds to float32 on the way, which is not linear; use .*model\.exact"):
        path_terms(circuit, "L1.H3.scores", 1)
    circuit = circuit.exact()
    terms = path_terms(circuit, "L1.H3.scores", 1)
    single = path_terms(circuit, "L1.H3.q", 1)
    assert len(terms) == len(single) ** 2 + 1
    pair = next(term for term in terms if term.heads == ("L0.H1", "L0.H2"))
    assert pair.name == "embed -> L0.H1.OV -> L1.H3.q | embed -> L0.H2.OV -> L1.H3.k"
    (mask,) = [term for term in terms if len(term.routes) == 1]
    assert mask.name == "where -> L1.H3.scores"


@every_kind
def test_circuits_with_heads_split_before_have_the_same_routes(kind: str) -> None:
    model = captured(kind)[1].exact()
    split = split_heads(model.circuit)
    for reader in ("logits", "L1.H3.k"):
        names = [{term.name for term in path_terms(one, reader, 1)} for one in (model.circuit, split)]
        assert names[0] == names[1]


@every_kind
@pytest.mark.parametrize("place", ["logits", "L1.attn.k", "L1.attn.scores"])
def test_the_rewrite_keeps_the_value(kind: str, place: str) -> None:
    model = captured(kind)[1].exact()
    inputs = batch(2, 9, padding="left")
    made = virtual_heads(model.circuit, place, depth=2)
    assert explain(made).splitlines()[-1].endswith("equality: virtual_heads x1")
    old, new = values(model, [model.circuit.roots["logits"], made.roots["logits"]], inputs)
    assert float((old - new).abs().max() / old.abs().max()) < 1e-10


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_term_is_one_contraction_with_the_weights_apart_or_multiplied(kind: str) -> None:
    model = captured(kind)[1].exact()
    inputs = batch(2, 9)
    terms = [one for one in path_terms(model.circuit, "L1.H3.k", 1) if one.heads and one.routes[0][0] == "embed"]
    assert len(terms) == HEADS
    for term in terms:
        apart, multiplied = contracted(term), contracted(term, multiplied=True)
        assert isinstance(apart, Einsum)
        assert isinstance(multiplied, Einsum)
        # the norm's weight of both layers, W_V, W_O and W_K are weights; embedding, pattern and two scales are not
        assert [sum(not reads_input(one) for one in node.factors) for node in (apart, multiplied)] == [5, 1]
        assert sum(map(reads_input, apart.factors)) == 4
        (matrix,) = [one for one in multiplied.factors if not reads_input(one)]
        assert {axis.size for axis in matrix.axes} == {32, 8}
        one, two, three = values(model, [term.node, apart, multiplied], inputs)
        torch.testing.assert_close(two, one, rtol=0, atol=1e-12)
        torch.testing.assert_close(three, one, rtol=0, atol=1e-12)


def attention_only(norm: str = "none") -> tuple[Transformer, Model]:
    config = Config(2, 2, 12, 4, 0, 7, 16, 7, norm=norm, bias=False)  # type: ignore[arg-type]
    module = Transformer(config, seed=3).double().eval()
    return module, sj.load(module, cache=None, name="attention only").exact()


def test_terms_are_the_products_of_weights_and_patterns_by_hand() -> None:
    """embed P_a W_V^a W_O^a W_K^b, and through two heads P_b P_a, from the module's own matrices."""
    module, model = attention_only()
    ids = torch.tensor([[1, 5, 2, 5, 0, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    found = sj.run(model, inputs, keep=["L0.H1.pattern", "L1.H0.pattern"])
    patterns = [found[name].as_tensor()[0] for name in ("L0.H1.pattern", "L1.H0.pattern")]
    embed = module.tokens.weight[ids[0]]

    def part(layer: int, name: str, head: int) -> Tensor:
        weight = getattr(module.blocks[layer].attn, name).weight
        return weight[:, 4 * head : 4 * head + 4].T if name == "o" else weight[4 * head : 4 * head + 4].T

    written = patterns[0] @ embed @ part(0, "v", 1) @ part(0, "o", 1)
    expected = {
        ("L1.H0.k", "embed -> L0.H1.OV -> L1.H0.k"): written @ part(1, "k", 0),
        ("L1.H0.v", "embed -> L1.H0.v"): embed @ part(1, "v", 0),
        ("logits", "embed -> L0.H1.OV -> L1.H0.OV -> logits"): patterns[1] @ written @ part(1, "v", 0) @ part(1, "o", 0) @ module.unembed.weight.T,
        ("L1.H0.scores", "embed -> L1.H0.q | embed -> L0.H1.OV -> L1.H0.k"): (embed @ part(1, "q", 0)) @ (written @ part(1, "k", 0)).T / 2,
    }  # fmt: skip
    for (reader, name), by_hand in expected.items():
        (term,) = [one for one in path_terms(model.circuit, reader, 2) if one.name == name]
        (value,) = values(model, [term.node], inputs)
        torch.testing.assert_close(value[0], by_hand.detach(), rtol=0, atol=1e-12)
        if reader == "logits":
            (flat,) = values(model, [contracted(term, multiplied=True)], inputs)
            torch.testing.assert_close(flat, value, rtol=0, atol=1e-12)
    assert len(path_terms(model.circuit, "logits", 2)) == 2 * (1 + 2 + 2 + 4)


def test_all_routes_through_a_model_of_attention_alone_begin_at_embeddings() -> None:
    _, model = attention_only("layer")
    terms = path_terms(model.circuit, "logits", LAYERS)
    assert {term.routes[0][0] for term in terms} == {"embed", "pos_embed", "biases"}


def test_what_is_no_reader_is_refused() -> None:
    circuit = captured("gpt2")[1].circuit
    for text in ("L1.mlp.out", "L1.H3.z", "L1.attn.k"):
        with pytest.raises(CircuitError, match="is no reader; give logits, or one head's q, k, v"):
            path_terms(circuit, text)
    with pytest.raises(CircuitError, match=r"names no one head of this layer, which has 4: H0\.\.H3"):
        path_terms(circuit, "L1.H9.k")
    with pytest.raises(AddressError):
        path_terms(circuit, "L7.H0.k")
    with pytest.raises(CircuitError, match=r"has \d+ terms to this depth, more than 20: go through fewer heads"):
        path_terms(circuit, "L1.H3.scores", 1, most=20)
    with pytest.raises(CircuitError, match=r"'L1.mlp.out' names no head; write L0\.H3"):
        path_terms(circuit, "logits", 1, through=["L1.mlp.out"])
    with pytest.raises(CircuitError, match="no node of the circuit was asked for"):
        virtual_heads(circuit, [])


def test_the_rule_says_why_it_does_not_hold() -> None:
    circuit = captured("gpt2")[1].circuit
    rule = through_heads(1)
    (z,) = [circuit.table["L1.attn.z"]]
    with pytest.raises(CircuitError, match="neither a linear map of one value by weights nor a contraction of two"):
        applied(rule, z)
    with pytest.raises(CircuitError, match="it is for a linear map, or queries with keys, and this is Along"):
        applied(rule, circuit.table["L1.attn.pattern"])
    down = next(one for one in circuit.nodes if isinstance(one, Einsum) and one.summed == ("hidden",))
    with pytest.raises(CircuitError, match="one source only"):
        rewrite(circuit, rule, where=[down])


@pytest.mark.parametrize("family", ["gptj", "gpt_neox", "qwen3", "falcon"])
def test_families_that_turn_queries_and_keys_in_other_ways(family: str) -> None:
    """Every second place turned, some places only, q/k norms, and keys shared by all heads."""
    module = families.build(family)
    model = sj.load(module, cache=None, name=family).exact()
    inputs = {key: one for key, one in families.batch(module, 2, 9).items() if key in model.circuit.inputs}
    for reader in ("logits", "L1.H1.k_rot", "L1.H1.scores"):
        terms = path_terms(model.circuit, reader, 1)
        assert any(term.heads for term in terms)
        own = model.node(parse(reader, model.anatomy.shape)) if reader != "logits" else model.circuit.roots["logits"]
        old, new = values(model, [own, Add(tuple(term.node for term in terms))], inputs)
        seen = old > -1e100
        assert float((old - new)[seen].abs().max() / old[seen].abs().max()) < 1e-10
    if family != "falcon":  # which takes keys out of one weight by a look-up
        scores = [one for one in model.circuit.nodes if isinstance(one, Einsum) and {"query", "key"} <= one.axis_names]
        made = rewrite(model.circuit, FACTOR_QK, where=scores)
        old, new = values(model, [model.circuit.roots["logits"], made.roots["logits"]], inputs)
        assert float((old - new).abs().max() / old.abs().max()) < 1e-10
