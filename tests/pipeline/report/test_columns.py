"""Columns come through as they are."""

import base64
import json

import numpy as np
import pyarrow as pa
import pytest

from pipeline.report.columns import STEPS, encoded, numbers, script, steps

KINDS = {"u8": "<u1", "u16": "<u2", "u32": "<u4", "i16": "<i2", "i32": "<i4", "f32": "<f4", "f64": "<f8"}


def decoded(column: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(column["d"]), KINDS[column["t"]])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u8"),
        ([256], "u16"),
        ([1 << 31], "u32"),
        ([-1, 5], "i16"),
        ([-40_000], "i32"),
        ([1 << 40], "f64"),
        ([], "u8"),
    ],
)
def test_integers_are_kept_exactly_in_the_smallest_type(values: list[int], kind: str) -> None:
    column = numbers(np.array(values, np.int64))
    assert column["t"] == kind
    assert decoded(column).tolist() == values


def test_lists_and_slices_of_them_keep_their_values() -> None:
    array = pa.array([[9], [1, 2], None, [], [3]], pa.list_(pa.int32())).slice(1)
    column = encoded(array)
    assert decoded(column["n"]).tolist() == [2, 0, 0, 1]
    assert decoded(column["v"]).tolist() == [1, 2, 3]


def test_what_is_null_is_told() -> None:
    assert np.isnan(decoded(encoded(pa.array([1.5, None], pa.float32())))).tolist() == [False, True]
    assert np.isnan(decoded(encoded(pa.array([1, None], pa.int32())))).tolist() == [False, True]
    column = encoded(pa.array(["b", None, "a", "b"]))
    assert [column["w"][code] if code >= 0 else None for code in decoded(column["c"])] == ["b", None, "a", "b"]


def test_a_script_is_ascii_without_tags_and_has_every_text() -> None:
    texts = ["</script><!--", "\ud800", "\0\n\u2028", "é"]
    data = script("x", texts).decode("ascii")
    assert "<" not in data
    assert "\n" not in data[:-1]
    assert json.loads(data.removeprefix("unmix.add(...").removesuffix(")\n")) == ["x", texts]


def test_steps_are_close_and_what_is_active_stays_so() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000) * rng.choice([0, 1e-9, 1], 100_000)
    scale = np.full(len(values), np.abs(values).max())
    found = steps(values, scale)
    assert np.abs(found / STEPS * scale - values).max() <= scale[0] / STEPS
    assert ((found != 0) == (values != 0)).all()
    assert (np.sign(found) == np.sign(values)).all()
    assert steps(np.array([np.nan, 0.0]), np.zeros(2)).tolist() == [-32768, 0]
