"""Small random models of every family of transformers, made from its own configuration class by one generic shrinking.

Weights are drawn at unit scale (see `small_models`): at a library's own initialisation a wrong activation changes logits by
less than rounding does.
"""

from __future__ import annotations

import inspect
import os
from typing import Any

import torch
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")

VOCABULARY, CONTEXT, WIDTH, HIDDEN = 101, 64, 32, 48

SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "d_embed"), WIDTH),
    **dict.fromkeys(
        (
            "num_hidden_layers",
            "n_layer",
            "n_layers",
            "num_layers",
            "encoder_layers",
            "decoder_layers",
            "num_decoder_layers",
        ),
        2,
    ),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads", "decoder_attention_heads"),
        4,
    ),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(
        (
            "intermediate_size",
            "n_inner",
            "ffn_dim",
            "d_ff",
            "encoder_ffn_dim",
            "decoder_ffn_dim",
            "ffn_hidden_size",
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "hidden_dim",
            "intermediate_size_mlp",
        ),
        HIDDEN,
    ),
    "head_dim": 8,
    "d_kv": 8,
    "rotary_dim": 4,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length"), CONTEXT),
    **dict.fromkeys(
        ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts", "num_experts_per_layer"), 4
    ),
    **dict.fromkeys(("num_experts_per_tok", "moe_top_k", "moe_k"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts"), 1),
    "vocab_size": VOCABULARY,
    "embedding_size": WIDTH,
    "word_embed_proj_dim": WIDTH,
    "sliding_window": 7,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "vocab_size_per_layer_input": VOCABULARY,
    "hidden_size_per_layer_input": 8,
    "image_size": 32,
    "patch_size": 16,
    "depth": 2,
    "num_kv_shared_layers": 0,
    "mamba_d_state": 8,
    "state_size": 8,
    "ssm_state_size": 8,
    "num_mel_bins": 8,
    **dict.fromkeys(
        ("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps", "norm_eps", "norm_epsilon", "layernorm_epsilon"), 1e-3
    ),
}
"""Sizes by the names that configurations use for them; a configuration takes those that it has."""

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "cls_token_id", "sep_token_id", "decoder_start_token_id")
"""Left out where a family allows it, else 0: no id of a batch is below `FIRST_ID`."""

FIRST_ID = 3

LATENT = {"num_key_value_heads": 4}
"""Multi-head latent attention: every head has keys of its own."""

MORE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "longcat_flash",
            "minicpm3",
            "youtu",
        ),
        LATENT,
    ),
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "attn_layer_indices": [1]},
    "cpmant": {
        "segment_types": 4,
        "position_bias_num_buckets": 32,
        "position_bias_max_distance": 64,
        "prompt_types": 4,
        "prompt_length": 4,
    },
    # short inputs make a block-sparse module exchange its own attention for the plain one
    "big_bird": {"attention_type": "original_full"},
    "bigbird_pegasus": {"attention_type": "original_full"},
    "dots3_note_text": {"num_key_value_heads": 4},
    "esmc": {"num_key_value_heads": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 7},
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_n_groups": 1,
        "layer_types": ["mamba", "attention"],
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8},
    "roc_bert": {
        "pronunciation_vocab_size": 20,
        "shape_vocab_size": 20,
        "pronunciation_embed_dim": 8,
        "shape_embed_dim": 8,
    },
    "bart": {"pad_token_id": 0},
    "mbart": {"pad_token_id": 0},
    "mvp": {"pad_token_id": 0},
    "prophetnet": {"pad_token_id": 0},
    "flaubert": {"pad_token_id": 0, "pad_index": 0},
    "xlm": {"pad_token_id": 0, "pad_index": 0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"layer_types": ["linear_attention", "hybrid"], "attn_layer_period": 2, "attn_layer_offset": 1},
    "zamba2": {
        "layer_types": ["linear_attention", "hybrid"],
        "hybrid_layer_ids": [1],
        "mamba_ngroups": 1,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
    },
    "reformer": {"axial_pos_embds": False},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a family needs beside that."""


def settings(kind: str) -> dict[str, Any]:
    """Return the arguments of a family's configuration class that make a small model of it."""
    from transformers import CONFIG_MAPPING  # noqa: PLC0415

    return _small(CONFIG_MAPPING[kind]) | MORE.get(kind, {})


def _small(kind: Any) -> dict[str, Any]:
    """Return small sizes for a configuration class, those of the configurations inside it too."""
    plain = kind()
    taken = set(inspect.signature(kind.__init__).parameters) | set(plain.to_dict())
    given = {name: value for name, value in SMALL.items() if name in taken}
    for name in getattr(plain, "sub_configs", {}):
        inner = getattr(plain, name, None)
        if inner is not None:
            given[name] = _small(type(inner)) | MORE.get(inner.model_type, {}) | _ids(inner.to_dict(), 0)
    return given


def _ids(taken: Any, value: int | None) -> dict[str, int | None]:
    return {name: value for name in TOKENS if name in taken}


def config(kind: str) -> Any:
    """Return the configuration of a small model of a family."""
    from transformers import CONFIG_MAPPING, AutoConfig  # noqa: PLC0415

    given = settings(kind)
    taken = CONFIG_MAPPING[kind]().to_dict()
    try:
        return AutoConfig.for_model(kind, **(_ids(taken, None) | given))
    except Exception:  # noqa: BLE001 - configurations check themselves each in its own way; the second try tells why
        return AutoConfig.for_model(kind, **(_ids(taken, 0) | given))


def build(kind: str, seed: int = 0) -> Any:
    """Return a small model of a family in evaluation mode: its causal or, failing that, its masked language model."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM  # noqa: PLC0415
    from transformers.models.auto import modeling_auto  # noqa: PLC0415

    made = config(kind)
    auto = (
        AutoModelForMaskedLM
        if kind in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        else AutoModelForCausalLM
        if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        else AutoModelForSeq2SeqLM
        if kind in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
        else AutoModel
    )
    torch.manual_seed(seed)
    options: dict[str, Any] = {"attn_implementation": "eager"}
    if any("expert" in name for name in made.to_dict()):
        options["experts_implementation"] = "batched_mm"
    module = auto.from_config(made, **options).eval()
    redraw(module, seed)
    return module


def redraw(module: nn.Module, seed: int) -> None:
    """Draw every weight anew: matrices that keep the scale of what they read, norms near one, biases that matter."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for owner in module.modules():
            for name, weight in owner.named_parameters(recurse=False):
                noise = torch.randn(weight.shape, generator=draw)
                if weight.dim() > 1:
                    inward = type(owner).__name__ == "Conv1D"
                    weight.copy_(noise * weight.shape[0 if inward else -1] ** -0.5)
                elif "bias" in name:
                    weight.copy_(noise * 0.2)
                else:
                    weight.copy_(1 + noise * 0.2)


def batch(module: Any, rows: int, length: int, padding: str = "none", seed: int = 1) -> dict[str, Tensor]:
    """Return all that the module takes of ids, padding mask and positions of real tokens; rows are padded by different amounts.

    An encoder-decoder gets `length` tokens for its decoder and three more for its encoder.
    """
    draw = torch.Generator().manual_seed(seed)
    taken = inspect.signature(module.forward).parameters
    if "decoder_input_ids" not in taken:
        ids, mask = _tokens(rows, length, padding, draw)
        made = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    else:
        ids, mask = _tokens(rows, length + 3, padding, draw)
        made = {"input_ids": ids, "attention_mask": mask}
        made |= dict(
            zip(("decoder_input_ids", "decoder_attention_mask"), _tokens(rows, length, "none", draw), strict=True)
        )
    return {name: value for name, value in made.items() if name in taken}


def _tokens(rows: int, length: int, padding: str, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    ids = torch.randint(FIRST_ID, VOCABULARY, (rows, length), generator=draw)
    mask = torch.ones(rows, length, dtype=torch.long)
    for row in range(rows):
        many = min((row * 3 + 2) % 7, length - 1)
        if padding == "left":
            mask[row, :many] = 0
        elif padding == "right":
            mask[row, length - many :] = 0
    return ids, mask


def logits_of(module: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return what the module itself gives."""
    taken = inspect.signature(module.forward).parameters
    options = {"use_cache": False} if "use_cache" in taken else {}
    with torch.no_grad():
        made = module(**inputs, return_dict=True, **options)
    return made.logits if "logits" in made else made.last_hidden_state


QUICK = (
    "gpt2",
    "gpt_neo",
    "gptj",
    "gpt_neox",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "opt",
    "bloom",
    "falcon",
    "olmo",
    "olmo2",
    "olmo3",
    "stablelm",
    "starcoder2",
    "granite",
    "cohere",
    "gpt_oss",
    "llama4_text",
    "smollm3",
    "glm4",
    "bert",
    "roberta",
    "distilbert",
    "t5",
    "mamba",
    "albert",
    "electra",
    "modernbert",
    "exaone4",
    "deepseek_v3",
    "mpt",
    "gpt_bigcode",
    "nemotron",
    "helium",
    "lfm2",
    "bart",
    "bamba",
    "minicpm3",
    "xglm",
)
"""Families that are tried at every run of the tests: each of the usual anatomies, and each unusual one once."""

FAMILIES = (
    *QUICK,
    "afmoe",
    "apertus",
    "arcee",
    "aria_text",
    "axk1",
    "axk2",
    "bailing_hybrid",
    "beam",
    "bert-generation",
    "big_bird",
    "bigbird_pegasus",
    "biogpt",
    "bitnet",
    "blenderbot",
    "blenderbot-small",
    "camembert",
    "codegen",
    "cohere2",
    "cohere2_moe",
    "convbert",
    "cpmant",
    "ctrl",
    "cwm",
    "data2vec-text",
    "deberta",
    "deberta-v2",
    "deepseek_v2",
    "deepseek_v32",
    "deepseek_v4",
    "diffllama",
    "doge",
    "dots1",
    "dots3_note_text",
    "ernie",
    "ernie4_5",
    "ernie4_5_moe",
    "esm",
    "esmc",
    "eurobert",
    "exaone_moe",
    "falcon_h1",
    "falcon_mamba",
    "flaubert",
    "flex_olmo",
    "flint",
    "fnet",
    "gemma3",
    "gemma3n_text",
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
    "gemma4_unified_text",
    "glm",
    "glm4_moe",
    "glm4_moe_lite",
    "glm_moe_dsa",
    "gpt-sw3",
    "gpt_neox_japanese",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "gte",
    "hrm_text",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "hy_v3",
    "hy_v4",
    "hyperclovax",
    "ibert",
    "inkling2_text",
    "inkling_text",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jamba",
    "jina_embeddings_v3",
    "kimi_linear",
    "kolibri1",
    "laguna",
    "layoutlm",
    "lfm2_moe",
    "lfm3",
    "llama4",
    "mamba2",
    "marian",
    "mbart",
    "megatron-bert",
    "mellum",
    "mimo_v2_flash",
    "minimax",
    "minimax_m2",
    "minimax_m3_vl_text",
    "ministral",
    "ministral3",
    "mllama",
    "modernbert-decoder",
    "mpnet",
    "mra",
    "nanochat",
    "nemotron_h",
    "nomic_bert",
    "nystromformer",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "pegasus",
    "persimmon",
    "phimoe",
    "plbart",
    "prophetnet",
    "qwen3_5",
    "qwen3_moe",
    "recurrent_gemma",
    "reformer",
    "rembert",
    "roberta-prelayernorm",
    "roc_bert",
    "roformer",
    "seed_oss",
    "solar_open",
    "squeezebert",
    "tapas",
    "vaultgemma",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
    "youtu",
    "zamba2",
    "zaya",
)
"""Families that are tried by `make models`."""

NOT_CAPTURED = {
    **dict.fromkeys(
        ("qwen3_5_moe", "qwen3_next", "qwen4_exp", "xlstm"),
        "a recurrence written as loops over chunks and places: its capture takes minutes and was not waited for",
    ),
    "jetmoe": "groups tokens by expert, so sizes inside depend on the data",
    "longformer": "cuts its input into chunks by the values of its mask",
}
"""Families that build and run, and have no circuit: what is in the way."""
