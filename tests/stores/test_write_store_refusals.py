"""Rows that cannot be a store are told in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stores import write_store
from stores.commits import TOKENS
from tests.stores.test_write_store import ROWS, SMALL

NAN = np.where(np.arange(1000)[:, None] == 700, np.nan, ROWS["z"])
X = np.zeros((10, 3))


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({}, {}, "rows hold nothing, expected at least one hook point"),
        ([], {}, "rows gave no batch"),
        (X, {}, "rows gave a ndarray, expected {hook point"),
        ([{"x": X[:0]}], {}, "rows gave batches of no row"),
        ({"x": X[:1]}, {}, "rows are 1 row in all, and some have to be held out: expected at least 2"),
        ({"x": X[:, :0]}, {}, r"rows hold x \(10, 0\), expected at least one hook point with d of at least 1"),
        ({"x": np.zeros((2, 3, 4))}, {}, r"x is \(2, 3, 4\), expected \(n, d\)"),
        ({"x": X, "y": X[:9]}, {}, r"a batch holds x \(10, 3\), y \(9, 3\): expected the same number of rows"),
        ([{"x": X}, {"y": X}], {}, r"a batch holds y \(10, 3\), expected x \(n, 3\) as the first one"),
        ([{"x": X}, {"x": X[:, :2]}], {}, r"a batch holds x \(10, 2\), expected x \(n, 3\) as the first one"),
        ({"x": X.astype(str)}, {}, "x holds <U32, expected real numbers"),
        ({"x": X * 1j}, {}, "x holds complex128, expected real numbers"),
        ({"a/b": X}, {}, 'a hook point is called "a/b": a name has no slashes'),
        ({1: X}, {}, "a hook point is called 1, expected a string"),
        ({"z": NAN}, {}, "row 700 at z is not finite in float32: leave such rows out"),
        ({"z": X + 1e5}, {"dtype": "float16"}, "row 0 at z is not finite in float16.*or take dtype = 'float32'"),
        ({"z": X + 1e300}, {}, "row 0 at z is not finite in float32"),
        ({"x": X, TOKENS: np.zeros((3, 4), int)}, {}, r"expected 12 rows, one for each of 4 positions of 3 sequences"),
        ({"x": X, TOKENS: np.full((5, 2), -1)}, {}, "tokens are between -1 and -1, expected 0 to"),
        ({"x": X, TOKENS: np.zeros((5, 2))}, {}, "tokens holds float64, expected integers"),
        ({"x": X, TOKENS: np.zeros((5, 2), int)}, {"positions": [1, 2]}, "expected growing places in a context of 2"),
        ({"x": X}, {"positions": [0]}, 'expected "tokens" beside the hook points'),
        ({"x": X}, {"dtype": "int4"}, "dtype 'int4' is not one of float16, float32, bfloat16, int8"),
        ({"x": X}, {"dtype": ["float32"]}, "dtype .* is not one of float16"),
        ({"x": X}, {"heldout_fraction": 0}, "heldout_fraction = 0, expected a number between 0 and 1"),
        ({"x": X}, {"heldout_fraction": "a"}, "heldout_fraction = 'a', expected a number between 0 and 1"),
        ({"x": X}, {"chunk_rows": 0}, "chunk_rows = 0, expected a whole number, at least 1"),
        ({"x": X}, {"chunk_rows": 4.0}, "chunk_rows = 4.0, expected a whole number, at least 1"),
        ({"x": X}, {"shard_chunks": "a"}, "shard_chunks = 'a', expected a whole number, at least 1"),
        ({"x": X}, {"text": 3}, "text is a int, expected a string"),
        ({"x": X, TOKENS: np.zeros((5, 2), int)}, {"positions": 1}, "positions = '1', expected whole numbers"),
        ({"x": X, TOKENS: np.zeros((5, 2), int)}, {"positions": ["a"]}, "positions = .*, expected whole numbers"),
        (None, {}, "rows are a NoneType, expected {hook point"),
        (5, {}, "rows are a int, expected {hook point"),
        ({"x": torch.zeros(10, 3).to_sparse()}, {}, r"x is a sparse tensor, expected a dense one: call to_dense\(\)"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, rows: Any, options: dict, message: str) -> None:
    path = tmp_path / "s"
    with pytest.raises(ValueError, match=message) as error:
        write_store(path, rows, **(SMALL | options))
    assert "\n" not in str(error.value)
    assert not list(path.rglob("*"))
