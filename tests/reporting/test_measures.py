"""Contributions, patching and single parts equal what hooks on the torch module give."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from scrubjay import zoo
from scrubjay.claims.data import Feature
from scrubjay.errors import InputError
from scrubjay.interventions import zero
from scrubjay.reporting import brackets
from scrubjay.reporting.attention import mean_patterns, reading
from scrubjay.reporting.check import check_model, heads_add_up, stream_adds_up
from scrubjay.reporting.contribution import ATTENTION_BIAS, FINAL_BIAS, contributions
from scrubjay.reporting.part import resample_parts
from scrubjay.reporting.patching import Patching, patching
from scrubjay.reporting.variant import outcomes
from scrubjay.scrubbing.scrub import cross_entropy
from scrubjay.tasks import brackets as bracket_task
from small_models import captured


def answer(logits):
    return logits[:, 1] - logits[:, 0]


@contextmanager
def hooked(part, change):
    """Change a part's output (batch, query, model) while inside."""
    handle = part.register_forward_hook(lambda _part, _args, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def head_share(module, layer, head):
    """Return the z of one head, and the columns of the output projection that read it."""
    attention = module.blocks[layer].attn
    columns = slice(head * attention.d_head, (head + 1) * attention.d_head)
    return attention.o, columns


# --- contributions ---------------------------------------------------------------------------------------------------


def test_contributions_equal_those_of_the_torch_module(model, module, data, tensors):
    found = contributions(model, data, answer, 0)
    written = {}
    handles = []
    for layer, block in enumerate(module.blocks):
        handles.append(
            block.mlp.register_forward_hook(lambda _p, _a, out, name=f"L{layer}.mlp.out": written.update({name: out}))
        )
        handles.append(
            block.attn.o.register_forward_hook(
                lambda part, args, out, layer=layer: written.update(split(layer, part, args[0]))
            )
        )
    handles.append(module.ln_f.register_forward_hook(lambda _p, args, out: written.update({"final": args[0]})))

    def split(layer, part, z):
        half = z.shape[-1] // 2
        made = {
            f"L{layer}.H{head}.out": z[..., head * half : (head + 1) * half]
            @ part.weight[:, head * half : (head + 1) * half].T
            for head in (0, 1)
        }
        return {**made, f"L{layer}.bias": part.bias.expand_as(made[f"L{layer}.H0.out"])}

    with torch.no_grad():
        logits = module(**tensors(data))
        for handle in handles:
            handle.remove()
        direction = module.ln_f.weight * (module.unembed.weight[1] - module.unembed.weight[0])
        final = written["final"][:, 0]
        scale = (final.var(1, unbiased=False) + module.ln_f.eps).sqrt()
        for part, column in zip(found.parts, found.values.T, strict=True):
            if part.endswith(".out"):
                here = written[part][:, 0]
                theirs = ((here - here.mean(1, keepdim=True)) @ direction / scale).numpy()
                np.testing.assert_allclose(column, theirs, atol=2e-5, err_msg=part)
        biases = torch.stack([written[f"L{layer}.bias"][:, 0] for layer in range(3)]).sum(0)
        theirs = ((biases - biases.mean(1, keepdim=True)) @ direction / scale).numpy()
        np.testing.assert_allclose(found.values[:, found.parts.index(ATTENTION_BIAS)], theirs, atol=2e-5)
        ends = module.unembed(module.ln_f.bias)
        np.testing.assert_allclose(found.values[:, found.parts.index(FINAL_BIAS)], float(ends[1] - ends[0]), atol=1e-5)
    np.testing.assert_allclose(found.total, answer(logits).numpy(), atol=1e-4)
    assert found.error < 1e-4
    assert found.linear


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_contributions_add_up_at_the_last_real_position(kind):
    module, model = captured(kind)
    ids = torch.tensor([[3, 7, 11, 2, 9], [5, 1, 8, 8, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": mask}
    last = mask.sum(1) - 1

    def tenth(logits):
        rows = logits[torch.arange(2), last]
        return rows[:, 10] - rows.mean(1)

    found = contributions(model, inputs, tenth, -1)
    with torch.no_grad():
        logits = module(**inputs, position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    np.testing.assert_allclose(found.values.sum(1), tenth(logits).numpy(), atol=1e-4)
    assert {"L0.H3.out", "L1.mlp.out"} <= set(found.parts)


def test_contributions_refuse_a_stream_that_is_no_sum():
    _, model = captured("bert")
    with pytest.raises(InputError, match="norms follow the sums"):
        contributions(model, [[1, 2, 3]], lambda logits: logits[:, -1, 0], -1)


def test_a_mean_over_no_rows_is_refused(model, data):
    with pytest.raises(InputError, match="no rows"):
        contributions(model, data, answer, 0).mean(np.zeros(len(data), dtype=bool))


# --- patching --------------------------------------------------------------------------------------------------------


def test_patching_equals_hooks_on_the_torch_module(model, module, tensors):
    pair = brackets.pairs("left_horizon", 4, seed=1, size=6)
    clean, corrupted = tensors(pair.clean), tensors(pair.corrupted)
    found = patching(
        model, pair.clean, pair.corrupted, answer, ["L1.mlp.out@0", "L1.mlp.out", "L2.H1.out@0", "L1.resid_pre@3"]
    )
    with torch.no_grad():
        kept = {}
        keep = [
            module.blocks[1].mlp.register_forward_hook(lambda _p, _a, out: kept.update(mlp=out)),
            module.blocks[2].attn.o.register_forward_hook(lambda _p, args, out: kept.update(z=args[0])),
            module.blocks[0].register_forward_hook(lambda _p, _a, out: kept.update(stream=out)),
        ]
        ends = answer(module(**clean))
        for handle in keep:
            handle.remove()
        start = answer(module(**corrupted))

        def at(name, place):
            return lambda out: torch.cat([out[:, :place], kept[name][:, place : place + 1], out[:, place + 1 :]], 1)

        with hooked(module.blocks[1].mlp, at("mlp", 0)):
            one = answer(module(**corrupted))
        with hooked(module.blocks[1].mlp, lambda out: kept["mlp"]):
            two = answer(module(**corrupted))
        projection, columns = head_share(module, 2, 1)

        def swapped(_part, args):
            z = args[0].clone()
            z[:, 0, columns] = kept["z"][:, 0, columns]
            return (z,)

        handle = projection.register_forward_pre_hook(swapped)
        three = answer(module(**corrupted))
        handle.remove()
        with hooked(module.blocks[0], at("stream", 3)):
            four = answer(module(**corrupted))
    np.testing.assert_allclose(found.clean, ends.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.corrupted, start.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.patched, torch.stack([one, two, three, four]).numpy(), atol=1e-4)
    wanted = (torch.stack([one, two, three, four]) - start).mean(1) / (ends - start).mean()
    np.testing.assert_allclose(found.effect, wanted.numpy(), atol=1e-4)


def test_the_whole_stream_moves_the_answer_all_the_way(model):
    pair = brackets.pairs("count", 3, seed=1, size=6)
    for direction in ("denoise", "noise"):
        found = patching(model, pair.clean, pair.corrupted, answer, ["L2.resid_post@0", "L0.resid_pre"], direction)
        np.testing.assert_allclose(found.effect, 1.0, atol=1e-5)
        np.testing.assert_allclose(found.error, 0.0, atol=1e-5)


def test_effects_are_refused_where_the_ends_are_too_close():
    found = Patching(("L0.H0.out",), np.ones((1, 2)), np.array([1.0, 1.0]), np.array([1.0, 1.01]), "denoise")
    with pytest.raises(InputError, match="answers differently"):
        _ = found.effect


def test_patching_refuses_other_shapes_and_directions(model):
    one, two = sj_rows("(())"), sj_rows("()")
    with pytest.raises(InputError, match="same number of tokens"):
        patching(model, one, two, answer, ["L0.H0.out@0"])
    with pytest.raises(InputError, match="sideways"):
        patching(model, one, one, answer, ["L0.H0.out@0"], "sideways")


def sj_rows(text):
    return bracket_task.dataset([text])


def test_outcomes_equal_a_run_with_each_change(model, module, data, tensors):
    changes = [zero("L0.H1.out@0"), zero("L2.mlp.out")]
    made = outcomes(model, data, changes)
    with torch.no_grad(), hooked(module.blocks[2].mlp, torch.zeros_like):
        theirs = module(**tensors(data))
    torch.testing.assert_close(made[1], theirs, atol=1e-4, rtol=0)
    assert not torch.allclose(made[0], made[1])


# --- parts, attention, checks ----------------------------------------------------------------------------------------


def test_resampling_by_an_exact_feature_costs_nothing(model, data):
    exact = Feature("row", np.arange(len(data)))
    found = resample_parts(model, data, ["L2.H1.out@0", "L1.mlp.out@0"], {"row": exact}, seed=0)
    np.testing.assert_allclose(found.recovered[:, 1], 1.0, atol=1e-6)
    assert found.cost("L2.H1.out@0", None) > 0
    with pytest.raises(InputError, match="not measured"):
        found.cost("L0.H0.out@0", None)


def test_resampling_one_part_equals_a_hook(model, module, data, tensors):
    found = resample_parts(model, data, ["L1.mlp.out@0"], {}, seed=4)
    drawn = torch.from_numpy(np.random.default_rng(4).integers(len(data), size=len(data)))

    def swapped(out):
        return torch.cat([out[drawn, :1], out[:, 1:]], 1)

    with torch.no_grad(), hooked(module.blocks[1].mlp, swapped):
        theirs = cross_entropy(module(**tensors(data)), torch.from_numpy(np.array(data.labels)))
    np.testing.assert_allclose(found.losses[0, 0], theirs.numpy(), atol=1e-4)


def test_reading_shares_sum_to_one_over_all_kinds(model, data):
    found = reading(model, data, 0, {"[start]": 0, "(": 3, ")": 4, "[end]": 2})
    np.testing.assert_allclose(found.shares.sum(1), 1.0, atol=1e-5)
    np.testing.assert_allclose(found.even.sum(), 1.0)


def test_mean_patterns_refuse_padding(model, data):
    with pytest.raises(InputError, match="one length"):
        mean_patterns(model, data)
    pair = brackets.pairs("count", 3, seed=0, size=4)
    np.testing.assert_allclose(mean_patterns(model, pair.clean).weights.sum(2), 1.0, atol=1e-5)


def test_checks_hold_and_notice_another_module(model, module, data, tensors):
    batches = [tensors(data)]
    found = check_model(model, lambda inputs: module(**inputs), batches)
    assert [check.holds for check in found] == [True] * 4
    other = zoo.Transformer(module.config, seed=1).eval()
    assert check_model(model, lambda inputs: other(**inputs), batches)[0].holds is False


def test_checks_of_a_stream_that_is_no_sum_do_not_apply():
    _, model = captured("bert")
    inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
    assert stream_adds_up(model, [inputs]).holds is None
    assert heads_add_up(model, [{**inputs, "attention_mask": torch.ones(1, 3, dtype=torch.long)}]).holds is True


# --- the bracket case ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", brackets.KINDS)
def test_pairs_fail_one_test_alone(kind):
    pair = brackets.pairs(kind, 20, seed=5)
    for text in pair.clean.texts:
        assert balance(text) == (True, True)
    for text in pair.corrupted.texts:
        assert balance(text) == ((False, True) if kind == "count" else (True, False))


def balance(text):
    """Return whether the count and the left horizon pass, by walking through the string."""
    height, left = 0, True
    for character in text:
        height += 1 if character == "(" else -1
        left = left and height >= 0
    return height == 0, left


def test_features_of_the_tour_agree_with_a_walk():
    data = brackets.tour_data(200, seed=1)
    walked = [balance(text) for text in data.texts]
    assert data.feature("left_horizon").values.tolist() == [left for _, left in walked]
    assert data.feature("tests").values.tolist() == [2 * count + left for count, left in walked]
    assert data.labels.tolist() == [int(count and left) for count, left in walked]
    shuffled = data.feature("shuffled_count").values
    assert shuffled.sum() == data.feature("count").values.sum()
    assert (shuffled != data.feature("count").values).any()


def test_pairs_refuse_what_cannot_be():
    with pytest.raises(InputError, match="even size"):
        brackets.pairs("count", 3, seed=0, size=5)
    with pytest.raises(InputError, match="left_horizon"):
        brackets.pairs("sideways", 3, seed=0)
