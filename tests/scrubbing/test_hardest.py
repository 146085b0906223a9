"""The hardest case first: llama, grouped queries, rotary, left padding; three data meet at one node; against brute force.

The brute force is written against the torch module alone: forward hooks and the formulas of attention, no Scrubjay code.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import scrubjay as sj
from scrubjay.capture.model import Model
from scrubjay.claims.data import Dataset, Feature
from scrubjay.claims.parts import Part
from scrubjay.engine import evaluate
from scrubjay.interventions.inputs import prepare
from scrubjay.scrubbing.compute import compute
from scrubjay.scrubbing.sample import draw
from scrubjay.scrubbing.tree import treeify

ROWS, LENGTH, VOCAB = 7, 9, 61
HEAD, GROUP = 2, 2  # the head that is claimed, and query heads for each key-value head


@pytest.fixture(scope="module")
def module() -> Any:
    config: Any = LlamaConfig(
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, hidden_size=32, intermediate_size=48, vocab_size=VOCAB,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.25 if parameter.dim() > 1 else 1.0))
    return model


@pytest.fixture(scope="module")
def model(module: Any) -> Model:
    return sj.load(module, cache=None)


@pytest.fixture(scope="module")
def data() -> Dataset:
    generator = np.random.default_rng(0)
    ids = generator.integers(3, VOCAB, (ROWS, LENGTH))
    mask = np.ones((ROWS, LENGTH), np.int64)
    for row, pad in enumerate([0, 3, 1, 5, 0, 2, 4]):
        mask[row, :pad] = 0
    features = {"odd": Feature("odd", ids[:, -1] % 2 == 1), "third": Feature("third", ids[:, -2] % 3)}
    return Dataset("left padded", {"input_ids": ids, "attention_mask": mask}, ids[:, 0] % 5, features)


def stream(module: Any, data: Dataset, rows: np.ndarray, layer: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return what a layer reads on some rows, and the run's own pieces."""
    seen: dict[str, torch.Tensor] = {}
    ids, mask = (torch.from_numpy(np.array(data.inputs[name][rows])) for name in ("input_ids", "attention_mask"))
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    block = module.model.layers[layer]
    last = module.model.layers[-1]
    hooks = [
        block.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(read=args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        ),
        block.self_attn.o_proj.register_forward_pre_hook(lambda _, args: seen.update(z=args[0])),
        block.self_attn.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(mask=kwargs["attention_mask"]), with_kwargs=True
        ),
        last.register_forward_hook(
            lambda _, args, out: seen.update(last=out if isinstance(out, torch.Tensor) else out[0])
        ),
    ]
    with torch.no_grad():
        seen["logits"] = module(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    for hook in hooks:
        hook.remove()
    seen["positions"] = positions
    return seen["read"], seen


def head_of_three(
    module: Any, layer: int, q_from: torch.Tensor, k_from: torch.Tensor, rest: dict[str, torch.Tensor]
) -> torch.Tensor:
    """Return the head's output when queries, keys, and everything else come from three data, by the formulas."""
    block = module.model.layers[layer]
    attention, width = block.self_attn, module.config.hidden_size // 4

    def heads(linear: torch.nn.Linear, values: torch.Tensor, many: int) -> torch.Tensor:
        return linear(block.input_layernorm(values)).unflatten(-1, (many, width)).transpose(1, 2)

    with torch.no_grad():
        q, k, v = (
            heads(attention.q_proj, q_from, 4),
            heads(attention.k_proj, k_from, 2),
            heads(attention.v_proj, rest["read"], 2),
        )
        cos, sin = module.model.rotary_emb(v, rest["positions"])
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        scores = q[:, HEAD] @ k[:, HEAD // GROUP].transpose(1, 2) / math.sqrt(width) + rest["mask"][:, 0]
        z = scores.softmax(-1) @ v[:, HEAD // GROUP]
        return z @ attention.o_proj.weight[:, HEAD * width : (HEAD + 1) * width].T


def hypothesis() -> sj.Hypothesis:
    made = sj.Hypothesis("queries know the last token, keys the one before")
    head = made.node("output", site="logits@END").reads("head", f"L1.H{HEAD}.out@END", "odd")
    head.reads("queries", f"L1.H{HEAD}.q_in", "odd")
    head.reads("keys", f"L1.H{HEAD}.k_in", "third")
    return made


def test_three_data_meet_at_one_node_as_in_brute_force(module: Any, model: Model, data: Dataset) -> None:
    made = treeify(model, hypothesis())
    table = draw(made.sources, hypothesis(), data, samples=24, seed=3)
    assert {source.name for source in made.sources} >= {"output/other", "head", "head/other", "queries", "keys"}
    found = compute(model, [made.scrubbed, made.reference, made.floor], data, table)

    odd, third = data.feature("odd").values, data.feature("third").values
    assert (odd[table["head"]] == odd[table["reference"]]).all()
    assert (odd[table["queries"]] == odd[table["head"]]).all()
    assert (third[table["keys"]] == third[table["head"]]).all()

    q_from, _ = stream(module, data, table["queries"], 1)
    k_from, _ = stream(module, data, table["keys"], 1)
    _, rest = stream(module, data, table["head/other"], 1)
    new = head_of_three(module, 1, q_from, k_from, rest)[:, -1]
    _, other = stream(module, data, table["output/other"], 1)
    width = module.config.hidden_size // 4
    with torch.no_grad():
        weight = module.model.layers[1].self_attn.o_proj.weight[:, HEAD * width : (HEAD + 1) * width]
        old = other["z"][:, -1, HEAD * width : (HEAD + 1) * width] @ weight.T
        expected = module.lm_head(module.model.norm(other["last"][:, -1] - old + new))
    scale = float(expected.abs().max())
    assert float((found.values[0] - expected).abs().max()) <= 1e-5 * scale
    assert float((found.values[0] - other["logits"][:, -1]).abs().max()) > 1e-2 * scale, (
        "the claim must matter for the check to mean anything"
    )
    for value, source in zip(found.values[1:], ("reference", "floor"), strict=True):
        plain = stream(module, data, table[source], 1)[1]["logits"][:, -1]
        assert float((value - plain).abs().max()) <= 1e-5 * scale


@pytest.mark.parametrize("swapped", [("queries", "keys"), ("head/other", "output/other"), ("keys", "head/other")])
def test_the_check_fails_when_two_data_are_exchanged(model: Model, data: Dataset, swapped: tuple[str, str]) -> None:
    made = treeify(model, hypothesis())
    table = draw(made.sources, hypothesis(), data, samples=24, seed=3)
    one, two = swapped
    broken = {**table, one: table[two], two: table[one]}
    right, wrong = (compute(model, [made.scrubbed], data, each).values[0] for each in (table, broken))
    assert float((right - wrong).abs().max()) > 1e-3


def test_sharing_rows_and_slicing_positions_change_nothing(model: Model, data: Dataset) -> None:
    """The fast way against the plain evaluator on the whole treeified circuit, in 64 bits."""
    model = model.exact()
    made = treeify(model, hypothesis())
    table = draw(made.sources, hypothesis(), data, samples=16, seed=1)
    fast = compute(model, [made.scrubbed], data, table)
    rows = {f"rows.{name}": tensor for name, tensor in prepare(model, data).items()}
    index = {f"datum.{name}": torch.from_numpy(part) for name, part in table.items()}
    plain = evaluate([made.scrubbed], {**rows, **index}, model.stores, dtype=torch.float64)
    slow = plain[made.scrubbed].dense(("batch", "vocab")).detach()
    real = torch.isfinite(slow)
    assert real.any()
    assert float((fast.values[0] - slow)[real].abs().max()) < 1e-10
    assert fast.rows <= ROWS


def test_a_direction_of_a_head_and_its_remainder_have_data_of_their_own(
    module: Any, model: Model, data: Dataset
) -> None:
    """The part of a head's output along a plane, and the rest of it, read two data; the stream a third, all paths but one the keys'."""
    plane = Part.along("plane", np.random.default_rng(4).normal(size=(2, 32)))
    made = sj.Hypothesis("a plane", others="global")
    top = made.node("output", site="logits@END")
    top.reads("along", f"L2.H{HEAD}.out@END", "odd", part=plane)
    top.reads("beside", f"L2.H{HEAD}.out@END", "third", part=plane.rest)
    tree = treeify(model, made)
    assert [source.name for source in tree.sources] == ["reference", "floor", "other", "along", "beside"]
    table = draw(tree.sources, made, data, samples=24, seed=3)
    found = compute(tree.model, [tree.scrubbed], data, table).values[0]

    width = module.config.hidden_size // 4
    there = slice(HEAD * width, (HEAD + 1) * width)
    weight = module.model.layers[2].self_attn.o_proj.weight[:, there]
    basis = torch.from_numpy(plane.vectors).float()
    with torch.no_grad():
        runs = {name: stream(module, data, table[name], 2)[1] for name in ("along", "beside", "other")}
        writes = {name: run["z"][:, -1, there] @ weight.T for name, run in runs.items()}
        along = writes["along"] @ basis.T @ basis
        beside = writes["beside"] - writes["beside"] @ basis.T @ basis
        change = along + beside - writes["other"]
        block = module.model.layers[2]
        seen: dict[str, torch.Tensor] = {}
        ids, mask = (
            torch.from_numpy(np.array(data.inputs[name][table["other"]])) for name in ("input_ids", "attention_mask")
        )
        hook = block.post_attention_layernorm.register_forward_pre_hook(lambda _, args: seen.update(mid=args[0]))
        module(input_ids=ids, attention_mask=mask, position_ids=runs["other"]["positions"], use_cache=False)
        hook.remove()
        mlp = block.mlp(block.post_attention_layernorm(seen["mid"]))[:, -1]  # a direct path does not pass the MLP
        expected = module.lm_head(module.model.norm(seen["mid"][:, -1] + change + mlp))
    scale = float(expected.abs().max())
    assert float((found - expected).abs().max()) <= 1e-5 * scale
    assert float((found - runs["other"]["logits"][:, -1]).abs().max()) > 1e-2 * scale


def test_a_path_that_avoids_a_head_is_every_path_where_that_head_writes_nothing(model: Model, data: Dataset) -> None:
    """With grouped queries a head is one place of two axes; the other heads of its group are passed."""

    def value(
        on: Model, via: str, table: dict[str, np.ndarray] | None = None
    ) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
        made = sj.Hypothesis("paths")
        made.node("output", site="logits@END").reads("mlp", "L0.mlp.out", "odd", via=via)
        tree = treeify(on, made)
        table = table or draw(tree.sources, made, data, samples=12, seed=0)
        return compute(tree.model, [tree.scrubbed], data, table).values[0], table

    deaf = sj.edit(model, sj.zero("L1.H3.out"), sj.zero("L2.H0.out"))
    everything, table = value(deaf, "all")
    avoiding, _ = value(deaf, "avoiding L1.H3.out, L2.H0.out", table)
    torch.testing.assert_close(avoiding, everything, rtol=1e-5, atol=1e-5)
    through, _ = value(deaf, "direct or through L1.H*.out, L2.H*.out, L1..2.mlp.out avoiding L1.H3.out", table)
    torch.testing.assert_close(through, everything, rtol=1e-5, atol=1e-5)
    for via in ("all", "avoiding L1.H3.out", "direct or through L1.H2.out", "direct"):
        assert float((value(model, via, table)[0] - value(model, "avoiding L1.H2.out", table)[0]).abs().max()) > 1e-3
