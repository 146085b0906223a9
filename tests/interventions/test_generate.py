"""Generation is running the whole sequence anew at each step, and computes less."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import scrubjay as sj
import small_models
from scrubjay.errors import AddressError, InputError
from scrubjay.interventions.generate import generate

STEPS = 7
CAUSAL = ("gpt2", "llama")


def prompts(padding: str = "left", rows: int = 3, length: int = 9) -> dict[str, Tensor]:
    return small_models.batch(rows, length, padding)


def longer(inputs: dict[str, Tensor], new: Tensor) -> dict[str, Tensor]:
    return {
        "input_ids": torch.cat([inputs["input_ids"], new], 1),
        "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(new)], 1),
    }


def by_hand(model: Any, inputs: dict[str, Tensor], changes: Any = (), steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """The most probable tokens and their log-probabilities, each from one run of the whole sequence."""
    tokens, logs = [], []
    here = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    for _ in range(steps):
        logits = sj.run(model, here, interventions=changes).logits[:, -1]
        tokens.append(logits.argmax(-1))
        logs.append(logits.log_softmax(-1).max(-1).values)
        here = longer(here, tokens[-1][:, None])
    return torch.stack(tokens, 1), torch.stack(logs, 1)


def same(made: Any, expected: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(made.tokens, expected[0])
    torch.testing.assert_close(made.log_probabilities.float(), expected[1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", CAUSAL)
def test_without_interventions_it_is_the_library_s_own_greedy_search(kind: str) -> None:
    module, model = small_models.captured(kind)
    for padding in ("none", "left"):
        given = prompts(padding)
        theirs = module.generate(
            given["input_ids"], attention_mask=given["attention_mask"], do_sample=False, max_new_tokens=20, pad_token_id=0
        )  # fmt: skip
        made = generate(model, given, 20)
        assert torch.equal(made.tokens, theirs[:, 9:])
        assert made.positions == (9, *[1] * 19)
        assert torch.equal(made.inputs["input_ids"], theirs)
    assert max(made.evaluated[1:]) < made.evaluated[0]


def vector(seed: int = 3) -> Tensor:
    return torch.randn(small_models.WIDTH, generator=torch.Generator().manual_seed(seed)) * 3


def linear() -> torch.nn.Module:
    made = torch.nn.Linear(small_models.WIDTH, small_models.WIDTH)
    with torch.no_grad():
        made.weight.copy_(torch.randn(made.weight.shape, generator=torch.Generator().manual_seed(4)) * 0.3)
    return made.requires_grad_(False)


def other() -> dict[str, Tensor]:
    return small_models.batch(3, 9 + STEPS, "none", seed=8)


CHANGES: dict[str, tuple[Any, int]] = {
    "everywhere": (lambda: sj.add("L0.resid_post", vector()), 1),
    "a head": (lambda: sj.zero("L0.H1.z"), 1),
    "what a head reads": (lambda: sj.zero("L1.H1.k_in"), 1),
    "a head's share": (lambda: sj.replace("L1.H2.out", 0.5), 1),
    "a real position": (lambda: sj.add("L0.resid_pre@2", vector()), 1),
    "a position to come": (lambda: sj.replace("L0.mlp.out@2..8", vector()), 1),
    "the newest": (lambda: sj.add("L0.resid_post@-1", vector()), 2),
    "the end": (lambda: sj.replace("L1.H0.z@END", 2.0), 2),
    "all but the first": (lambda: sj.add("L0.attn.out@1..-1", vector()), 2),
    "the last but some": (lambda: sj.zero("L0.attn.v@-3..-2"), 4),
    "mean": (lambda: sj.mean("L0.mlp.out", over=other()), 1),
    "resample": (lambda: sj.resample("L0.attn.z", over=other(), seed=2), 1),
    "patch": (lambda: sj.patch("L0.resid_post@1..2", other()), 1),
    "project_out": (lambda: sj.project_out("L1.resid_pre", vector()), 1),
    "pattern": (lambda: sj.zero("L0.H0.pattern"), 1),
    "function": (lambda: sj.apply("L0.resid_post", lambda value: value * 1.5 + 1), 1),
    "module": (lambda: sj.splice("L0.resid_mid@3..-1", linear()), 2),
}


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("name", CHANGES)
def test_each_token_is_that_of_a_run_of_the_whole_sequence(kind: str, name: str) -> None:
    """`CHANGES` says how many positions a step computes: those that the step before had changed and this one does not are among them."""
    _, model = small_models.captured(kind)
    make, positions = CHANGES[name]
    given, change = prompts(), make()
    made = generate(model, given, STEPS, interventions=change)
    # a run refuses a position that no row has yet; an edited model does not
    same(made, by_hand(sj.edit(model, change), given) if "to come" in name else by_hand(model, given, change))
    assert not torch.equal(made.log_probabilities, generate(model, given, STEPS).log_probabilities)
    assert made.positions == (9, *[positions] * (STEPS - 1))


def test_several_interventions_reach_back_as_far_as_the_farthest() -> None:
    _, model = small_models.captured("llama")
    given, changes = prompts(), [sj.add("L0.resid_post@-1", vector()), sj.zero("L1.attn.z@-3"), sj.zero("L0.KV0.v")]
    made = generate(model, given, STEPS, interventions=changes)
    same(made, by_hand(model, given, changes))
    assert made.positions == (9, *[4] * (STEPS - 1))


UNIFORM = {
    "pattern": lambda: sj.replace("L0.H0.pattern", 0.1),
    "mean of all": lambda: sj.apply("L0.attn.v", lambda value: value + value.mean(1, keepdim=True)),
    "from the back": lambda: sj.apply("L0.resid_post", lambda value: value.flip(1)),
}


@pytest.mark.parametrize("kind", CAUSAL)
@pytest.mark.parametrize("name", UNIFORM)
def test_a_change_by_which_positions_read_later_ones_is_computed_in_full(kind: str, name: str) -> None:
    _, model = small_models.captured(kind)
    given, change = prompts("none"), UNIFORM[name]()
    made = generate(model, given, STEPS, interventions=change)
    same(made, by_hand(model, given, change))
    assert made.positions == tuple(range(9, 9 + STEPS))


def test_a_function_that_comes_to_change_earlier_positions_is_noticed() -> None:
    """Nothing shows in the prompt: the function looks back only once the sequence is long."""
    _, model = small_models.captured("gpt2")
    given = prompts("none")
    change = sj.apply(
        "L0.resid_post", lambda value: value if value.shape[1] < 13 else value + value.mean(1, keepdim=True)
    )
    made = generate(model, given, STEPS, interventions=change)
    same(made, by_hand(model, given, change))
    assert made.positions == (9, 1, 1, 1, 13, 14, 15)


def test_an_edited_model_is_tried_and_one_that_reads_ahead_is_computed_in_full() -> None:
    _, model = small_models.captured("gpt2")
    edited = sj.edit(model, sj.add("L0.resid_post", vector()))
    made = generate(edited, prompts(), STEPS)
    same(made, by_hand(edited, prompts()))
    assert made.positions[1:] == (1,) * (STEPS - 1)
    ahead = sj.edit(model, sj.replace("L0.H0.pattern", 0.1))
    made = generate(ahead, prompts("none"), STEPS)
    same(made, by_hand(ahead, prompts("none")))
    assert made.positions[1:] == tuple(range(10, 9 + STEPS))
    _, both_ways = small_models.captured("bert")
    made = generate(both_ways, prompts(), 3)
    same(made, by_hand(both_ways, prompts(), steps=3))
    assert made.positions == (9, 10, 11)


def test_rows_padded_on_either_side_are_continued_alike() -> None:
    """An intervention at @2 stays at the third real token of each row."""
    _, model = small_models.captured("llama")
    left, change = prompts("left"), sj.add("L0.resid_post@2", vector())
    right = {name: torch.zeros_like(left[name]) for name in ("input_ids", "attention_mask")}
    for row, mask in enumerate(left["attention_mask"]):
        many = int(mask.sum())
        right["input_ids"][row, :many] = left["input_ids"][row, -many:]
        right["attention_mask"][row, :many] = 1
    one, two = (generate(model, given, STEPS, interventions=change) for given in (left, right))
    assert torch.equal(one.tokens, two.tokens)
    torch.testing.assert_close(one.log_probabilities, two.log_probabilities, rtol=0, atol=2e-5)
    alone = {name: left[name][1:2, -int(left["attention_mask"][1].sum()) :] for name in right}
    assert torch.equal(generate(model, alone, STEPS, interventions=change).tokens[0], one.tokens[1])


def test_kept_values_are_those_of_a_run_of_the_finished_sequences() -> None:
    _, model = small_models.captured("gpt2")
    change = sj.add("L0.resid_post", vector())
    made = generate(
        model, prompts(), STEPS, interventions=change, keep=["L*.resid_post", "L1.H2.pattern", "L0.H1.z@-1"]
    )
    run = sj.run(model, dict(made.inputs), keep=["L*.resid_post", "L1.H2.pattern", "L0.H1.z@-1"], interventions=change)
    for name in ("L*.resid_post", "L1.H2.pattern", "L0.H1.z@-1"):
        torch.testing.assert_close(made[name].as_tensor(), run[name].as_tensor(), rtol=0, atol=1e-6)
    assert made["L1.resid_post"].as_tensor().shape[1] == 9 + STEPS
    with pytest.raises(InputError, match=r"L0.mlp.out was not kept: sj.generate\("):
        _ = generate(model, prompts(), 1)["L0.mlp.out"]
    with pytest.raises(AddressError, match="did you mean"):
        generate(model, prompts(), 2, keep="L0.resid_pst")


def test_drawing_repeats_by_its_seed_and_keeps_to_the_most_probable() -> None:
    _, model = small_models.captured("gpt2")
    one, two, three = (generate(model, prompts(), STEPS, temperature=1.5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.tokens, two.tokens)
    assert not torch.equal(one.tokens, three.tokens)
    greedy = generate(model, prompts(), STEPS)
    assert torch.equal(generate(model, prompts(), STEPS, temperature=9.0, top_k=1, seed=0).tokens, greedy.tokens)
    some = generate(model, prompts(), 20, temperature=50.0, top_k=3, seed=0)
    logits = sj.run(model, dict(some.inputs)).logits[:, 8:-1]
    ranks = (logits > logits.gather(2, some.tokens[:, :, None])).sum(-1)
    assert ranks.max() == 2
    assert {0, 1, 2} == set(ranks.flatten().tolist())
    many = {name: tensor[:1].repeat(4000, 1) for name, tensor in prompts("none").items()}
    drawn = generate(model, many, 1, temperature=0.7, seed=5).tokens[:, 0]
    expected = (sj.run(model, prompts("none")).logits[0, -1] / 0.7).softmax(-1)
    found = torch.bincount(drawn, minlength=small_models.VOCABULARY) / 4000
    assert float((found - expected).abs().max()) < 4 * (0.25 / 4000) ** 0.5


class Letters:
    """A tokenizer of two letters for each token."""

    padding_side, pad_token_id = "left", 0

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(one) - 32 for one in text]}

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(one + 32) for one in ids)


def test_a_row_ends_at_its_stop_and_the_others_go_on() -> None:
    _, model = small_models.captured("llama")
    spelled = replace(model, tokenizer=Letters())
    free = generate(spelled, ["abc", "ab"], STEPS)
    assert [len(text) for text in free.text] == [STEPS, STEPS]
    stop = int(free.tokens[0, 2])
    first = free.tokens[0].tolist().index(stop)
    assert stop not in free.tokens[1].tolist()
    for asked in (stop, [stop], chr(stop + 32), [chr(stop + 32)]):
        made = generate(spelled, ["abc", "ab"], STEPS, stop=asked)
        assert made.lengths.tolist() == [first + 1, STEPS]
        assert torch.equal(made.tokens[1], free.tokens[1])
        assert made.tokens[0].tolist() == [*free.tokens[0, : first + 1].tolist(), *[0] * (STEPS - first - 1)]
        assert made.inputs["attention_mask"][0, 3:].tolist() == [1] * (first + 1) + [0] * (STEPS - first - 1)
        assert made.log_probabilities[0, first + 1 :].tolist() == [0.0] * (STEPS - first - 1)
    both = free.text[1][1:3]
    assert generate(spelled, "ab", STEPS, stop=both).text == [free.text[1][: free.text[1].index(both) + 2]]
    everything = generate(spelled, ["abc", "abc"], STEPS, stop=int(free.tokens[0, 0]))
    assert everything.tokens.shape == (2, 1)


def test_what_does_not_fit_is_refused() -> None:
    _, model = small_models.captured("gpt2")
    given = prompts()
    for options, text in [
        ({"tokens": 0}, "give at least 1 to write"),
        ({"tokens": 60}, r"60 tokens after a prompt of \d+ make \d+ positions; gpt2 takes at most 64"),
        ({"temperature": -1.0}, "temperature=-1.0: give 0"),
        ({"temperature": 1.0}, "give a seed"),
        ({"temperature": 1.0, "seed": 0, "top_k": 0}, "top_k=0"),
        ({"top_k": 3}, "temperature=0 draws nothing"),
        ({"stop": "x"}, "is a text and gpt2 has no tokenizer"),
        ({"interventions": sj.zero("L0.attn.z@30")}, "has no position 30"),
        ({"interventions": sj.zero("L0.attn.z@-8")}, "has no position -8"),
        ({"interventions": sj.patch("L0.attn.z", given)}, "name a position"),
        ({"interventions": sj.mean("L0.attn.z", given)}, "longest row to take the mean over"),
        ({"interventions": sj.replace("L0.resid_post", float("nan"))}, "step 0: the logits of row 0 are no finite"),
    ]:
        with pytest.raises(InputError, match=text):
            generate(model, given, **{"tokens": 4, **options})
    with pytest.raises(InputError, match="has no tokenizer"):
        _ = generate(model, given, 1).text
