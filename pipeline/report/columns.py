"""Columns as the pages read them: text that is a script, with numbers as base64 of their little-endian bytes.

A page that is opened from disk may not fetch a file, but may run a script beside it. Each data file is one call,
unmix.add(NAME, VALUE), of ASCII alone: no byte of a token's text can end the script or be read in another encoding.
"""

import base64
import json
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow.compute import call_function

_INTEGERS = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "i16": np.int16, "i32": np.int32}


def script(name: str, value: Any) -> bytes:
    """The data file that adds a value under a name. Raises ValueError: a number is not finite."""
    text = json.dumps([name, value], separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")
    return f"unmix.add(...{text})\n".encode("ascii")


def numbers(values: np.ndarray) -> dict[str, str]:
    """{"t": kind, "d": base64} of integers in the smallest of u8, u16, u32, i16, i32 that holds them, else of f64; of other
    floats as f32."""
    if values.dtype.kind in "iub":
        low, high = (int(values.min()), int(values.max())) if len(values) else (0, 0)
        fits = [k for k, kind in _INTEGERS.items() if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max]
        kind, values = (fits[0], values.astype(_INTEGERS[fits[0]])) if fits else ("f64", values.astype(np.float64))
    else:
        kind, values = "f32", values.astype(np.float32)
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return {"t": kind, "d": base64.b64encode(data.tobytes()).decode()}


def encoded(column: pa.Array | pa.ChunkedArray) -> dict[str, Any]:
    """A column of numbers (null: NaN), of strings (null: null) or of lists of these (null: empty), for columns.js.

    Raises TypeError: it is of another type.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        return {"t": "list", "n": numbers(lengths(array)), "v": encoded(array.flatten())}
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        words = array.dictionary_encode()
        codes = words.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return {"t": "str", "w": words.dictionary.to_pylist(), "c": numbers(codes)}
    if pa.types.is_integer(array.type) and not array.null_count:
        return numbers(array.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_null(array.type):
        return numbers(array.cast(pa.float64()).to_numpy(zero_copy_only=False))
    raise TypeError(f"a column of {array.type}, expected numbers, strings or lists of them")


def lengths(array: pa.Array) -> np.ndarray:
    """Of each list; 0 where it is null."""
    return call_function("list_value_length", [array]).fill_null(0).to_numpy(zero_copy_only=False)


STEPS = 32767  # of an activation, between 0 and the largest of its feature
_NO_VALUE = -32768


def steps(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Activations as int16 steps of scale / STEPS: half the bytes of float32, to 1/65,534 of the feature's largest.

    What is active stays so: no value but 0 becomes 0. NaN, of which there is no value, is -32768.
    """
    known = np.isfinite(values)
    kept = np.where(known, values, 0)
    rounded = np.rint(kept / np.where(scale > 0, scale, 1) * STEPS)
    rounded = np.where((rounded == 0) & (kept != 0), np.sign(kept), rounded)
    return np.where(known, np.clip(rounded, -STEPS, STEPS), _NO_VALUE).astype(np.int16)
