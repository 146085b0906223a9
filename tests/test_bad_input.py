"""Bad input, and what is said about it: what was asked, what there is, and what to do."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scrubjay as sj
from scrubjay.errors import AddressError, CaptureError, InputError, LoadError, ScrubjayError
from small_models import CONTEXT, VOCABULARY, batch, build, captured, load


@pytest.fixture(scope="module")
def model() -> Any:
    return captured("llama")[1]


def says(error: type[ScrubjayError], asked: str, there: str, advice: str) -> Any:
    """Expect an error that holds three things: what was asked, what there is, what to do. One of them may say two."""
    wanted = "".join(f"(?=.*{re.escape(part)})" for part in (asked, there, advice))
    return pytest.raises(error, match=rf"(?s)^{wanted}")


def test_errors_can_be_caught_as_the_built_in_ones(model):
    with pytest.raises(KeyError):
        sj.run(model, batch(), keep="L0.rezid_pre")
    with pytest.raises(ValueError, match="outside the vocabulary"):
        sj.run(model, [[VOCABULARY]])


ADDRESSES = {
    "L0.resid_prf": ("L0.resid_prf", "no such site 'resid_prf' of L0", "did you mean L0.resid_pre"),
    "L0.H1.zz": ("L0.H1.zz", "no such site 'zz' of L0.H1", "z, "),
    "logit": ("'logit'", "no such value of the whole model", "did you mean logits?"),
    "pos_embed": ("pos_embed", "this model has no such site", "did you mean embed"),
    "L7.resid_pre": ("L7.resid_pre", "layer 7 does not exist", "this model has layers L0..L1"),
    "L1..5.resid_pre": ("L1..5.resid_pre", "layer 5 does not exist", "layers L0..L1"),
    "L0.H9.z": ("L0.H9.z", "head 9 does not exist", "layer 0 has heads H0..H3"),
    "L0.KV2.k": ("L0.KV2.k", "key-value head 2 does not exist", "layer 0 has key-value heads KV0..KV1"),
    "L1.N48": ("L1.N48", "neuron 48 does not exist", "layer 1 has neurons N0..N47"),
    "L0.mlp.E0.out": ("L0.mlp.E0.out", "no layer of this model has it", "it has "),
    "model.layers.0.mpl": ("model.layers.0.mpl", "this model has no such module", "did you mean model.layers.0.mlp"),
    "blocks.0.attn.hook_w": ("blocks.0.attn.hook_w", "no TransformerLens hook of this name", "did you mean "),
}


@pytest.mark.parametrize("address", [address for address, said in ADDRESSES.items() if said[0]])
def test_an_address_that_names_nothing(model, address):
    for use in (
        lambda: sj.run(model, batch(), keep=address),
        lambda: sj.run(model, batch(), interventions=[sj.zero(address)]),
        lambda: sj.edit(model, sj.zero(address)),
    ):
        with says(AddressError, *ADDRESSES[address]):
            use()


def test_text_for_a_model_without_a_tokenizer(model):
    for text in ("a text", ["a text", "and another"]):
        with says(
            InputError, "llama has no tokenizer", "cannot read text", "give token ids, or sj.load(..., tokenizer=...)"
        ):
            sj.run(model, text)


@pytest.mark.parametrize(("token", "shown"), [(VOCABULARY, VOCABULARY), (-1, -1), (50_256, 50_256)])
def test_a_token_out_of_range(model, token, shown):
    with says(InputError, f"token {shown} is outside", "which has tokens 0..100", "vocabulary of llama"):
        sj.run(model, [[3, 4, token]])


@pytest.mark.parametrize(
    ("given", "shown"),
    [([], "an empty batch was given"), (torch.zeros(0, 5, dtype=torch.long), "(0, 5)"), (torch.zeros(2, 0, dtype=torch.long), "(2, 0)"), ([[], []], "(2, 0)")],
)  # fmt: skip
def test_an_empty_batch(model, given, shown):
    with says(InputError, shown, "empty", "give at least one row"):
        sj.run(model, given)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_row_longer_than_the_context(kind):
    """For rotary positions too, which would run on without an error: the configuration says how long the model was made for."""
    _, model = captured(kind)
    ids = torch.zeros(1, CONTEXT + 1, dtype=torch.long)
    with says(InputError, f"a row of {CONTEXT + 1} positions", f"{kind} takes at most {CONTEXT}", "shorten it"):
        sj.run(model, ids)
    assert sj.run(model, ids[:, 1:]).logits.shape[1] == CONTEXT


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_padding_does_not_count_towards_the_context(kind):
    """The positions of a padded row fit, and so does the row: its logits are those of the row without padding."""
    _, model = captured(kind)
    inputs = batch(rows=1, length=CONTEXT + 6, padding="none")
    inputs["attention_mask"][:, :10] = 0
    del inputs["position_ids"]
    padded = sj.run(model, inputs).logits[:, 10:]
    plain = sj.run(model, inputs["input_ids"][:, 10:]).logits
    assert float((padded - plain).abs().max()) <= 2e-5


def test_positions_beyond_the_table():
    _, model = captured("gpt2")
    inputs = batch(rows=1, length=5, padding="none")
    inputs["position_ids"] = inputs["position_ids"] + CONTEXT
    with says(ScrubjayError, "68", f"{CONTEXT} p", ""):
        sj.run(model, inputs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers(value):
    module = build("gpt2")
    with torch.no_grad():
        module.transformer.h[1].mlp.c_fc.weight[3, 4] = value
    model = load(module)
    with says(
        LoadError, "'transformer.h.1.mlp.c_fc.weight'", "1 values that are not finite numbers", "load another one"
    ):
        sj.run(model, batch())


def test_weights_that_stop_being_numbers_between_runs():
    module = build("gpt2")
    model = load(module)
    sj.run(model, batch())
    with torch.no_grad():
        module.transformer.ln_f.weight[0] = float("nan")
    with pytest.raises(LoadError, match=r"'transformer\.ln_f\.weight' holds 1 values"):
        sj.run(model, batch())


@pytest.mark.parametrize("padding", [[1, 1, 0, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]])
def test_padding_in_the_middle_of_a_row(model, padding):
    mask = torch.ones(3, 5, dtype=torch.long)
    mask[1] = torch.tensor(padding)
    inputs = {"input_ids": torch.ones(3, 5, dtype=torch.long), "attention_mask": mask}
    with says(InputError, "row 1 of the attention mask", "padding between real tokens", "pad at the ends only"):
        sj.run(model, inputs)


def test_a_row_of_nothing_but_padding(model):
    inputs = {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.tensor([[1] * 5, [0] * 5])}
    with pytest.raises(InputError, match="row 1 of the attention mask has no real token"):
        sj.run(model, inputs)


@pytest.mark.parametrize("position", ["12", "-13", "0..12", "-13..-1", "12..12"])
def test_a_position_beyond_a_row(model, position):
    """A row of 17 places with 12 real tokens has positions 0..11 and -12..-1, on whichever side its padding is."""
    inputs = batch()
    assert inputs["attention_mask"].sum(1).tolist() == [15, 12, 17]
    address = f"L0.resid_pre@{position}"
    for use in (
        lambda: sj.run(model, inputs, keep=address),
        lambda: sj.run(model, inputs, interventions=[sj.zero(address)]),
    ):
        with says(InputError, address, "row 1 has 12 real tokens", f"no position {-13 if '-13' in position else 12}"):
            use()


def test_padding_for_a_model_that_reads_no_mask():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.table(input_ids)

    bare = load(Bare().eval(), inputs={"input_ids": torch.zeros(2, 12, dtype=torch.long)})
    ids, mask = torch.ones(2, 5, dtype=torch.long), torch.ones(2, 5, dtype=torch.long)
    assert sj.run(bare, {"input_ids": ids, "attention_mask": mask}).logits.shape == (2, 5, 4)
    mask[0, 0] = 0
    with says(InputError, "the attention_mask has padding", "Bare reads no mask", "give rows of one length"):
        sj.run(bare, {"input_ids": ids, "attention_mask": mask})


def test_a_position_with_a_name_that_nothing_defines(model):
    with says(AddressError, "@SUBJECT", "names no such position", "use a number (@3, @-1), a range (@2..5) or @END"):
        sj.run(model, batch(), keep="L0.resid_pre@SUBJECT")


def test_a_position_of_a_value_without_positions():
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 4)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.table(input_ids).mean(1)

    pooled = load(Pooled().eval(), inputs={"input_ids": torch.zeros(2, 12, dtype=torch.long)})
    with says(AddressError, "@3", "has no positions to choose from", ""):
        sj.run(pooled, torch.ones(2, 5, dtype=torch.long), keep="logits@3")


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


class Filtering(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0].sum()


@pytest.mark.parametrize("kind", [Branching, Filtering])
def test_control_flow_that_depends_on_data(kind):
    with pytest.raises(CaptureError, match=r"(depends? on the (values of its input|data)).*torch\.where"):
        sj.load(kind().eval(), inputs={"x": torch.randn(3, 4)}, dynamic={"x": ("batch", None)}, cache=None)


def test_a_module_in_training_mode():
    with says(CaptureError, "training mode", "dropout", "call module.eval() first"):
        sj.load(build("gpt2").train(), cache=None)


def test_inputs_that_do_not_fit(model):
    ids = torch.ones(2, 5, dtype=torch.long)
    with says(InputError, "no input token_type_ids", "its inputs are", "input_ids"):
        sj.run(model, {"input_ids": ids, "token_type_ids": ids})
    with says(InputError, "the model also reads input_ids", "given: attention_mask", "give every input by name"):
        sj.run(model, {"attention_mask": ids})
    with says(InputError, "[3, 5]", "rows of different lengths", "pad them and give an attention_mask, or give texts"):
        sj.run(model, [[1, 2, 3], [1, 2, 3, 4, 5]])
    with says(InputError, "(2, 5, 1)", "the model expects (batch, query)", "input_ids"):
        sj.run(model, ids[..., None])
    with says(InputError, "torch.float32", "token ids are whole numbers", "input_ids"):
        sj.run(model, ids.float())
    with says(ScrubjayError, "the attention_mask has shape (3, 5)", "the token ids (2, 5)", "give both the same size"):
        sj.run(model, {"input_ids": ids, "attention_mask": torch.ones(3, 5, dtype=torch.long)})


def test_a_source_that_is_no_model():
    with says(LoadError, "cannot load a dict", "", "give a torch module, a folder, a hub name, or zoo/NAME"):
        load({"weight": 1})  # type: ignore[arg-type]


def test_interventions_that_do_not_fit(model):
    inputs = batch()
    with says(
        InputError,
        "<replace L0.resid_pre>",
        "the tensor has 31 places along 'model', the value 32",
        "its axes, in order",
    ):
        sj.run(model, inputs, interventions=[sj.replace("L0.resid_pre", torch.zeros(31))])
    with says(InputError, "<project_out L0.resid_pre>", "shape (2, 31)", "the value's last axis is model=32"):
        sj.run(model, inputs, interventions=[sj.project_out("L0.resid_pre", torch.ones(2, 31))])
    with says(InputError, "<project_out L0.resid_pre>", "all directions are zero", ""):
        sj.run(model, inputs, interventions=[sj.project_out("L0.resid_pre", torch.zeros(32))])
    with says(
        ScrubjayError,
        "the function given to apply returned (3, 17, 31)",
        "it must return a tensor of shape (3, 17, 32)",
        "(batch, query, model)",
    ):
        sj.run(model, inputs, interventions=[sj.apply("L0.resid_pre", lambda value: value[..., 1:])])
    with says(InputError, "an intervention is made by sj.zero", "", "got str"):
        sj.run(model, inputs, interventions=["L0.resid_pre"])  # type: ignore[list-item]
    with says(InputError, "splice takes a torch module", "not function", "for a function use apply"):
        sj.splice("L0.resid_pre", lambda value: value)  # type: ignore[arg-type]
    with says(InputError, "mean(by='row')", "", "use 'position' or 'all'"):
        sj.mean("L0.resid_pre", inputs, by="row")
    with says(
        ScrubjayError,
        "L0.attn.pattern",
        "a mean over rows of values between two positions is not defined",
        "average z instead",
    ):
        sj.run(model, inputs, interventions=[sj.mean("L0.attn.pattern", inputs)])
    with says(
        InputError, "<mean L0.resid_pre>", "the run has a row of 17 real tokens", "give longer ones, or by='all'"
    ):
        sj.run(model, inputs, interventions=[sj.mean("L0.resid_pre", batch(length=8))])
    with says(ScrubjayError, "L0.resid_pre", "the run has a row of 17 real tokens", "give longer ones"):
        sj.run(model, inputs, interventions=[sj.resample("L0.resid_pre", batch(length=8))])
