"""The ATen operations that an `Opaque` node may hold: the only list, asked when a node is made and again when it is evaluated.

A circuit may come from a file that someone else wrote. So what it can call is listed by name: functions of tensors and numbers
that give the same tensors each time. Not listed, and so refused: what reads or writes files, shares or resizes storage, moves
between devices, draws at random, gives memory that nothing was written to, changes its arguments, or trusts them unchecked.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, cast

from scrubjay.errors import CircuitError, near

PERMITTED = frozenset(
    """
    abs acos acosh add addbmm addcdiv addcmul addmm addmv addr alias all amax amin aminmax angle any argmax argmin argsort asin
    asinh atan atan2 atanh baddbmm bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm
    bucketize cat cdist ceil celu clamp clamp_max clamp_min clone complex concat conj conj_physical constant_pad_nd contiguous
    copy copysign cos cosh count_nonzero cross cummax cummin cumprod cumsum deg2rad detach diag diag_embed diagonal
    diagonal_copy diagonal_scatter diff digamma div divide dot elu embedding eq erf erfc erfinv exp exp2 expand expm1 fill
    flatten flip float_power floor floor_divide fmax fmin fmod frac frexp full_like gather gcd ge gelu glu greater greater_equal
    gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 igamma igammac imag index index_add index_copy index_fill
    index_put index_reduce index_select isclose isfinite isin isinf isnan isneginf isposinf kron kthvalue lcm ldexp le
    leaky_relu lerp less less_equal lgamma lift_fresh_copy linear log log10 log1p log2 log_sigmoid log_sigmoid_forward
    log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit logsumexp lt
    masked_fill masked_scatter matmul matrix_exp max maximum mean median min minimum mish mm mode movedim mse_loss mul multiply
    mv nan_to_num nanmean nanmedian nansum narrow narrow_copy ne neg negative new_full new_ones new_zeros nextafter nll_loss
    nll_loss_forward norm not_equal one_hot ones_like outer permute permute_copy pixel_shuffle pixel_unshuffle polar polygamma
    positive pow prelu prod quantile nanquantile rad2deg real reciprocal relu relu6 remainder renorm repeat repeat_interleave
    reshape resolve_conj resolve_neg roll rot90 round rsqrt rsub scatter scatter_add scatter_reduce searchsorted
    select select_copy select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice slice_copy slice_scatter slogdet
    softmax softplus softshrink sort split split_with_sizes sqrt square squeeze squeeze_copy stack std std_mean sub subtract sum
    t take take_along_dim tan tanh tensor_split tensordot threshold tile to topk trace transpose transpose_copy tril triu
    true_divide trunc unbind unflatten unfold unfold_copy unsafe_chunk unsafe_split unsafe_split_with_sizes unsqueeze
    unsqueeze_copy var var_mean vdot view view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy vstack
    where xlogy zero zeros_like chunk __and__ __or__ __xor__ __lshift__ __rshift__ einsum tensordot
    eye linspace logspace arange full ones zeros scalar_tensor tril_indices triu_indices vander diagflat trapezoid cov corrcoef

    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d
    avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    affine_grid_generator bilinear channel_shuffle col2im grid_sampler grid_sampler_2d grid_sampler_3d im2col max_unpool2d
    max_unpool3d native_channel_shuffle pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
    replication_pad2d replication_pad3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d _adaptive_avg_pool2d _adaptive_avg_pool3d

    batch_norm group_norm instance_norm layer_norm rms_norm native_batch_norm native_group_norm native_layer_norm
    _fused_rms_norm _native_batch_norm_legit_no_training lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell
    rnn_relu_cell scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_attention_math _softmax _log_softmax _safe_softmax _masked_softmax _grouped_mm _int_mm _to_copy
    _unsafe_view _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _reshape_alias_copy
    _cdist_forward _pdist_forward _prelu_kernel _weight_norm _weight_norm_interface _addmm_activation _euclidean_dist _stack
    _conj _neg_view _is_all_true _is_any_true _shape_as_tensor _logcumsumexp _trilinear

    fft_fft fft_fft2 fft_fftn fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2
    fft_irfftn fft_rfft fft_rfft2 fft_rfftn _fft_c2c _fft_c2r _fft_r2c stft istft

    cholesky cholesky_inverse cholesky_solve det inverse triangular_solve linalg_cholesky linalg_cholesky_ex linalg_cross
    linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh linalg_householder_product linalg_inv
    linalg_inv_ex linalg_lu linalg_lu_factor linalg_lu_factor_ex linalg_lu_solve linalg_matmul linalg_matrix_exp
    linalg_matrix_norm linalg_matrix_power linalg_multi_dot linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve
    linalg_solve_ex linalg_solve_triangular linalg_svd linalg_svdvals linalg_vander linalg_vecdot linalg_vector_norm
    _linalg_det _linalg_eigh _linalg_slogdet _linalg_solve_ex _linalg_svd

    special_airy_ai special_bessel_j0 special_bessel_j1 special_bessel_y0 special_bessel_y1 special_digamma special_entr
    special_erf special_erfc special_erfcx special_erfinv special_exp2 special_expit special_expm1 special_gammainc
    special_gammaincc special_gammaln special_i0 special_i0e special_i1 special_i1e special_log1p special_log_ndtr
    special_log_softmax special_logit special_logsumexp special_multigammaln special_ndtr special_ndtri special_polygamma
    special_psi special_round special_sinc special_softmax special_xlog1py special_xlogy special_zeta
    """.split()  # noqa: SIM905 - a list of hundreds, in words
)
"""The names of the operations, without their overloads."""

SEEDED = frozenset(
    (
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "scaled_dot_product_attention"),
        *("_scaled_dot_product_attention_math", "_scaled_dot_product_flash_attention_for_cpu"),
    )
)
"""Those of them that draw at random when they are told to drop out; they are evaluated only where they are told not to."""

MADE = frozenset(
    ("eye", "linspace", "logspace", "arange", "full", "ones", "zeros", "scalar_tensor", "tril_indices", "triu_indices")
)
"""Those of them that make a tensor of numbers alone, without an operand."""

WORDS = frozenset(
    """
    none tanh trunc floor sum prod mean amax amin left right ij xy linear lower higher midpoint nearest constant reflect
    replicate circular fro nuc backward ortho forward U L same valid reduced complete
    """.split()  # noqa: SIM905 - a list of hundreds, in words
)
"""The texts that may be arguments: choices between variants of an operation, never a name of anything outside."""

_OP = re.compile(r"aten\.([a-z_0-9]+)\.([A-Za-z_0-9]+)", re.ASCII)
_EQUATION = re.compile(r"[A-Za-z., >-]{1,200}")
_TEXTS = ("size", "dtype", "float", "ignored")
_LONGEST, _DEEPEST = 100_000, 4


def name_of(op: str) -> str:
    """Return the name of an operation that is on the list; raise `CircuitError` for any other.

    >>> name_of("aten.sort.default")
    'sort'
    """
    found = _OP.fullmatch(op) if isinstance(op, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if found is None or found[2].startswith("__") or found[1] not in PERMITTED:
        asked = repr(op)[:80]
        raise CircuitError(
            f"the operation {asked} may not stand in a circuit{near(found[1], PERMITTED) if found else ''}: only functions of tensors that read "
            "nothing else, change nothing and draw nothing at random may, as listed in scrubjay.circuit.ops.aten"
        )
    return found[1]


@lru_cache(maxsize=4096)
def check_call(op: str, arguments: str, operands: int) -> None:
    """Raise `CircuitError` for an operation that is not on the list, or arguments that are no call of tensors and plain values."""
    name = name_of(op)
    try:
        found: Any = json.loads(arguments) if len(arguments) <= _LONGEST else None
    except (ValueError, RecursionError) as error:
        raise CircuitError(f"the arguments of {op} are no JSON: {arguments[:80]!r}") from error
    call = cast("list[Any]", found) if isinstance(found, list) else []
    if len(call) != 2 or not isinstance(call[0], list) or not isinstance(call[1], dict):
        raise CircuitError(f"the arguments of {op} should be [[argument, ...], {{name: argument, ...}}]")
    met = set[int]()
    if name == "einsum" and call[0] and isinstance(call[0][0], str) and _EQUATION.fullmatch(call[0][0]):
        call[0] = call[0][1:]
    for item in [*cast("list[Any]", call[0]), *cast("dict[str, Any]", call[1]).values()]:
        _check(op, item, operands, met, _DEEPEST)
    if met != set(range(operands)) or not (met or name in MADE):
        raise CircuitError(
            f"{op} has {operands} operands and its arguments name {', '.join(map(str, sorted(met))) or 'none'} of them: each is an "
            "argument, and there is one at least"
        )


def _check(op: str, item: Any, operands: int, met: set[int], deep: int) -> None:
    if item is None or isinstance(item, bool | int | float) or (isinstance(item, str) and item in WORDS):
        return
    if isinstance(item, list) and deep:
        for one in cast("list[Any]", item):
            _check(op, one, operands, met, deep - 1)
        return
    entries = list(cast("dict[str, Any]", item).items()) if isinstance(item, dict) else []
    if len(entries) == 1:
        kind, value = entries[0]
        if kind == "operand" and type(value) is int and 0 <= value < operands:
            met.add(value)
            return
        if (kind in _TEXTS and isinstance(value, str)) or (kind == "size" and type(value) is int):
            return
    raise CircuitError(
        f"{op} is called with {str(cast('object', item))[:80]!r}, which is no operand, number, size, type or choice"
    )
