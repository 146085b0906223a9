"""Digests: golden vectors, independence of order and layout, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrubjay.errors import InputError
from scrubjay.evidence import canonical_json, digest_array, digest_bytes, digest_json

# RFC 8785 section 3.2.2 and 3.2.3.
RFC_VALUE = {
    "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": '€$\u000f\nA\'B"\\\\"/',
    "literals": [None, True, False],
}
RFC_TEXT = (
    '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
    '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
)
RFC_KEYS = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_rfc_example():
    assert canonical_json(RFC_VALUE).decode() == RFC_TEXT


def test_keys_are_ordered_by_utf16_code_units():
    written = canonical_json(dict.fromkeys(reversed(RFC_KEYS), 0)).decode()
    assert list(json.loads(written)) == RFC_KEYS


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (0.000001, "0.000001"),
        (1e-7, "1e-7"),
        (333333333.3333332, "333333333.3333332"),
        (-1.23e-10, "-1.23e-10"),
        (123456.789, "123456.789"),
    ],
)
def test_floats_are_written_as_ecmascript_does(number, text):
    assert canonical_json(number).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_read_back(number):
    assert float(canonical_json(number)) == number


GOLDEN = {
    "bytes": "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "json": "sha256:43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777",
}


def test_golden_digests():
    assert digest_bytes(b"abc") == GOLDEN["bytes"]
    assert digest_json({"b": 2, "a": 1}) == GOLDEN["json"]  # of {"a":1,"b":2}
    written = b'{"dtype":"int32","shape":[2]}\n' + bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert digest_array(np.array([1, 2], dtype=np.int32)) == digest_bytes(written)


def test_array_digest_ignores_layout_and_byte_order():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert digest_array(array) == digest_array(np.asfortranarray(array))
    assert digest_array(array) == digest_array(array.astype(">f4"))
    assert digest_array(array) == digest_array(np.repeat(array, 2, axis=0)[::2])


def test_array_digest_distinguishes_shape_dtype_and_values():
    array = np.zeros((2, 3), dtype=np.int64)
    others = [array.T, array.ravel(), array.astype(np.int32), array.astype(np.float64), array + 1]
    assert len({digest_array(each) for each in [array, *others]}) == 6


def test_scalar_and_empty_arrays_have_digests():
    assert digest_array(np.array(1.0)) != digest_array(np.array([1.0]))
    assert digest_array(np.zeros((0, 3))) != digest_array(np.zeros((3, 0)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [float("nan")]}, r"nan at \$\.a\[0\]: JSON has no such number"),
        (float("-inf"), r"-inf at \$"),
        (2**53, r"integer 9007199254740992 at \$.*write it as text"),
        ({1: 2}, r"key 1 of type int"),
        (np.float64(1.0), r"type float64 at \$.*\.item\(\)"),
        ({"x": {1, 2}}, r"type set at \$\.x"),
        (b"raw", "type bytes"),
        ("\ud800", "lone surrogate"),
        ({"\ud800": 1}, "lone surrogate"),
    ],
)
def test_refused_values_say_where(value, message):
    with pytest.raises(InputError, match=message):
        canonical_json(value)


def test_arrays_of_objects_are_refused():
    with pytest.raises(InputError, match="dtype is <U1"):
        digest_array(np.array(["a"]))
