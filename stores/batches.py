"""Batches of rows from anywhere: checked, rounded, and cut into shards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Shaped

from stores.commits import TOKENS
from stores.description import DTYPES, from_stored, stored_width, to_stored
from stores.names import check_name

Rows = Mapping[str, Any]  # {hook point: (n, d) array or tensor}, and {"tokens": (n_sequences, context)}


@dataclass(frozen=True)
class Shape:
    """What all batches have in common. d: per hook point. context: None where there are no tokens."""

    d: dict[str, int]
    dtype: str
    context: int | None
    positions: tuple[int, ...]

    @classmethod
    def of(cls, batch: Any, dtype: str, positions: Sequence[int] | None) -> "Shape":
        """Of the first batch, which may be anything. Raises ValueError: it is no batch."""
        arrays = _arrays(batch)
        tokens = arrays.pop(TOKENS, None)
        d = {check_name(h, "a hook point"): x.shape[1] for h, x in arrays.items()}
        if not d or not all(d.values()):
            raise ValueError(f"rows hold {_shown(arrays)}, expected at least one hook point with d of at least 1")
        if tokens is None:
            if positions is not None:
                raise ValueError('positions are places in a context: expected "tokens" beside the hook points')
            return cls(d, dtype, None, (0,))
        context = tokens.shape[1]
        places = tuple(range(context)) if positions is None else tuple(positions)
        if not places or list(places) != sorted(set(places)) or not 0 <= places[0] <= places[-1] < context:
            raise ValueError(f"positions = {str(places)[:40]}, expected growing places in a context of {context}")
        return cls(d, dtype, context, places)

    def check(self, batch: Any) -> tuple[dict[str, Any], int]:
        """(arrays by name, number of sequences). Raises ValueError: other hook points or widths than before, or different
        numbers of rows."""
        arrays = _arrays(batch)
        expected = {**self.d, **({TOKENS: self.context} if self.context else {})}
        if {name: x.shape[1] for name, x in arrays.items()} != expected:
            wanted = ", ".join(f"{name} (n, {d})" for name, d in expected.items())
            raise ValueError(f"a batch holds {_shown(arrays)}, expected {wanted} as the first one")
        counts = {h: len(arrays[h]) for h in self.d}
        n_rows = next(iter(counts.values()))
        if len(set(counts.values())) > 1:
            raise ValueError(f"a batch holds {_shown(arrays)}: expected the same number of rows at all hook points")
        if self.context is None:
            return arrays, n_rows
        if n_rows != len(arrays[TOKENS]) * len(self.positions):
            raise ValueError(
                f"a batch holds {_shown(arrays)}: expected {len(arrays[TOKENS]) * len(self.positions)} rows, one for each of "
                f"{len(self.positions)} positions of {len(arrays[TOKENS])} sequences"
            )
        return arrays, len(arrays[TOKENS])


def shards(
    shape: Shape, batches: Iterator[Any], size: int
) -> Iterator[tuple[Int32[np.ndarray, "n context"], dict[str, np.ndarray], bool]]:
    """(tokens, rows by hook point, whether it is the last) of size sequences each, the last of 1 to size. Each is the
    caller's until it asks for the next one. Raises ValueError: a batch that is not of this shape, or not finite."""
    n = len(shape.positions)
    tokens = np.zeros((size, shape.context or 1), np.int32)
    rows = {h: np.empty((size * n, stored_width(d, shape.dtype)), DTYPES[shape.dtype]) for h, d in shape.d.items()}
    filled, n_before = 0, 0
    for batch in batches:
        arrays, n_sequences = shape.check(batch)
        start = 0
        while start < n_sequences:
            if filled == size:
                yield tokens, rows, False
                filled, n_before = 0, n_before + size
            stop = min(n_sequences, start + size - filled)
            end, first = filled + stop - start, (n_before + filled) * n
            if shape.context is not None:
                tokens[filled:end] = _token_ids(arrays[TOKENS][start:stop])
            for h, own in rows.items():
                own[filled * n : end * n] = _finite(arrays[h][start * n : stop * n], h, shape.dtype, first)
            filled, start = end, stop
    if filled:
        yield tokens[:filled], {h: own[: filled * n] for h, own in rows.items()}, True


def _arrays(batch: Any) -> dict[str, Any]:
    """By name; lists as arrays. Raises ValueError: not a mapping of names to matrices."""
    if not isinstance(batch, Mapping):
        raise ValueError(f"rows gave a {type(batch).__name__}, expected {{hook point: (n, d)}}")
    arrays = {name: x if hasattr(x, "shape") else np.asarray(x) for name, x in batch.items()}
    for name, x in arrays.items():
        if not isinstance(name, str):
            raise ValueError(f"a hook point is called {name!r}, expected a string")
        if isinstance(x, torch.Tensor) and x.layout != torch.strided:
            raise ValueError(f"{name} is a sparse tensor, expected a dense one: call to_dense() first")
        if len(x.shape) != 2:
            raise ValueError(f"{name} is {tuple(x.shape)}, expected (n, d): reshape it to one row each")
    return arrays


def _shown(arrays: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {tuple(x.shape)}" for name, x in arrays.items()) or "nothing"


def _numbers(x: Any, name: str, kinds: str) -> Shaped[np.ndarray, "n d"]:
    """kinds: NumPy's letters. Raises ValueError: something else than such numbers."""
    if isinstance(x, torch.Tensor):
        x = x.detach().float() if x.dtype == torch.bfloat16 else x.detach()  # NumPy has no bfloat16
        x = x.cpu().numpy()
    x = np.asarray(x)
    if x.dtype.name == "bfloat16":  # JAX's
        x = from_stored(x.view(np.uint16), "bfloat16")
    if x.dtype.kind not in kinds:
        raise ValueError(f"{name} holds {x.dtype}, expected {'integers' if kinds == 'iu' else 'real numbers'}")
    return x


def _finite(x: Any, hook_point: str, dtype: str, first: int) -> Shaped[np.ndarray, "n d"]:
    """x as it lies in a store of the dtype. first: its first row's number. Raises ValueError: a row is not finite."""
    found = to_stored(_single(_numbers(x, hook_point, "biuf"), dtype), dtype)
    bad = np.flatnonzero(~np.isfinite(from_stored(found, dtype)).all(1))
    if len(bad):
        others = ", or take dtype = 'float32' or 'bfloat16'" if dtype == "float16" else ""
        raise ValueError(
            f"row {first + bad[0]} at {hook_point} is not finite in {dtype}: leave such rows out at all hook points{others}"
        )
    return found


def _single(x: Shaped[np.ndarray, "n d"], dtype: str) -> Shaped[np.ndarray, "n d"]:
    """As it is where that is how it is stored; else float32. uint16 and int8 are numbers here, not a store's bits."""
    if dtype in ("float16", "float32") and x.dtype == dtype:
        return x
    with np.errstate(over="ignore"):  # what overflows is found as not finite
        return x.astype(np.float32)


def _token_ids(x: Any) -> Int32[np.ndarray, "n context"]:
    ids = _numbers(x, TOKENS, "iu")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < 2**31:
        raise ValueError(f"tokens are between {ids.min()} and {ids.max()}, expected 0 to 2^31 - 1")
    return ids.astype(np.int32)
