"""Nearest directions, exactly, without the cosine matrix: rough products tell where a maximum can lie, float32 ones what it is.

A tile is 128 rows of a set. One pass over blocks of the matrix, in bfloat16 where the processor multiplies it natively, keeps
the largest rough cosine of each direction with each tile, for both sets at once. A rough cosine is wrong by at most

    |ã·b̃ - a·b| ≤ |ã - a| |b̃| + |a| |b̃ - b|        (Cauchy-Schwarz), the sum's rounding, and that of the result

so a tile whose rough maximum lies further below the best cosine found cannot hold a better one. The others are multiplied again
in float32, the most promising first. No maximum is missed, whatever the directions are; directions that are all alike, in more
than a few tiles each, cost up to the whole product in float32.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int16, Int64
from torch import Tensor

from stores.products import linear

TILE = 128
ROWS, COLUMNS = 16 * TILE, 16 * TILE  # of a block: 8 MiB of bfloat16, which stay in the cache
_ROUNDING = 1.01 * 2.0**-8  # of a number to bfloat16, relative
_ALL = -(2**15)  # no int16 is less


class Nearest(NamedTuple):
    """The k nearest directions of each, nearest first. cosines: float32, |cosine| of signed codes."""

    cosines: Float32[Tensor, "n k"]
    indices: Int64[Tensor, "n k"]


def nearest(
    a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], k: int, *, signed: bool, others: bool = False
) -> Nearest:
    """Of each row of a the k rows of b of largest cosine, (n_a, min(k, n_b)).

    signed: codes may be negative, so that a direction and its opposite are one feature: |cosine|. others: b is a, and no row
    is a neighbour of its own, (n_a, min(k, n_a - 1)). A row of zeros has the cosine 0 with all.

    Beside a and b it holds b in the rough product's type, the maxima, n_a n_b / 64 bytes, twice that both ways, and some MiB.
    Raises ValueError: a and b are of different widths, one has no row, or k < 1.
    """
    if k < 1:
        raise ValueError(f"k = {k} nearest directions, expected at least one")
    check_directions(a, b)
    x, y = _Directions(a), _Directions(b)
    k = min(k, y.n - others)
    if not k:
        return Nearest(x.rows.new_empty(x.n, 0, dtype=torch.float32), x.rows.new_empty(x.n, 0, dtype=torch.long))
    maxima, _ = _tile_maxima(x, y, signed, others, both=False)
    return _found(x, y, maxima, k, signed, others)


def nearest_both_ways(a: Float[Tensor, "n_a d"], b: Float[Tensor, "n_b _"], *, signed: bool) -> tuple[Nearest, Nearest]:
    """nearest(a, b, 1) and nearest(b, a, 1) from one product."""
    check_directions(a, b)
    x, y = _Directions(a), _Directions(b)
    of_a, of_b = _tile_maxima(x, y, signed, others=False, both=True)
    return _found(x, y, of_a, 1, signed, False), _found(y, x, of_b, 1, signed, False)


def check_directions(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> None:
    """Raises ValueError: a and b are not rows of one width, or one has no row."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"directions are {tuple(a.shape)} and {tuple(b.shape)}, expected (n_a, d) and (n_b, d)")
    if not len(a) or not len(b):
        raise ValueError(f"{len(a)} and {len(b)} directions, expected at least one of each")


class _Directions:
    """Rows, seen as of unit length and as multiplied in the rough product."""

    def __init__(self, rows: Tensor) -> None:
        self.rows, self.n, self.n_tiles = rows, len(rows), -(-len(rows) // TILE)
        self.dtype = torch.bfloat16 if native_bfloat16(rows.device) else torch.float32
        self.scale, self.error = rows.new_empty(2, self.n, 1, dtype=torch.float32)
        self.floats = rows.new_empty(min(ROWS, self.n), rows.shape[1], dtype=torch.float32)  # new memory is slow
        self.chosen = torch.empty_like(self.floats, dtype=rows.dtype)
        rounded = torch.empty_like(self.floats, dtype=self.dtype)
        for some in _slices(self.n, ROWS):
            x = self.floats[: some.stop - some.start].copy_(rows[some])
            torch.norm(x, dim=1, keepdim=True, out=self.scale[some])
            self.scale[some].clamp_min_(1e-12).reciprocal_()
            x.mul_(self.scale[some])
            torch.norm(x.sub_(rounded[: len(x)].copy_(x)), dim=1, keepdim=True, out=self.error[some])

    def unit(self, some: slice) -> Float32[Tensor, "n d"]:
        """Of unit length, until the next call."""
        x = self.floats[: some.stop - some.start]
        return x.copy_(self.rows[some]).mul_(self.scale[some])

    def rough(self, some: slice, out: Tensor) -> Tensor:
        """Rows of unit length in whole tiles, the last one filled up with zeros. out: (≥ n, d), what is written to."""
        x = self.unit(some)
        n = -(-len(x) // TILE) * TILE
        out[: len(x)] = x
        out[len(x) : n] = 0
        return out[:n]


def native_bfloat16(device: torch.device) -> bool:
    """On a GPU float32 is fast enough, and its bfloat16 products may be summed in bfloat16."""
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _slices(n: int, size: int) -> Iterator[slice]:
    return (slice(i, min(i + size, n)) for i in range(0, n, size))


def _tile_maxima(
    x: _Directions, y: _Directions, signed: bool, others: bool, both: bool
) -> tuple[Int16[Tensor, "tiles_y n_x"], Int16[Tensor, "tiles_x n_y"]]:
    """The largest rough cosine of each row of x with each tile of y, and of each of y with each of x, empty unless both are
    wanted: bfloat16 numbers whose bits are taken for an int16.

    These compare three times as fast, and alike where one is not negative. Of negative ones alone any may be taken for the
    largest, so such a tile's bound is 0.
    """
    of_x = x.rows.new_empty(y.n_tiles, x.n_tiles * TILE, dtype=torch.int16)
    of_y = x.rows.new_empty(x.n_tiles if both else 0, y.n_tiles * TILE, dtype=torch.int16)
    d = x.rows.shape[1]
    columns = y.rows.new_empty(y.n_tiles * TILE, d, dtype=y.dtype)
    for some in _slices(y.n, ROWS):
        y.rough(some, columns[some.start :])
    block = x.rows.new_empty(ROWS, d, dtype=x.dtype)
    for rows in _slices(x.n, ROWS):
        left = x.rough(rows, block)
        for here in _slices(len(columns), COLUMNS):
            bits = linear(left, columns[here], None).bfloat16().view(torch.int16)
            n, m = bits.shape
            if signed:
                bits.bitwise_and_(0x7FFF)
            if others and here.start < rows.start + n and rows.start < here.stop:
                own = torch.arange(max(rows.start, here.start), min(rows.start + n, here.stop), device=bits.device)
                bits[own - rows.start, own - here.start] = _ALL
            tiles = slice(here.start // TILE, here.stop // TILE)
            of_x[tiles, rows.start : rows.start + n] = bits.view(n, m // TILE, TILE).amax(2).T
            if both:
                torch.amax(bits.view(n // TILE, TILE, m), 1, out=of_y[rows.start // TILE :][: n // TILE, here])
    return of_x[:, : x.n], of_y[:, : y.n]


def _found(
    x: _Directions, y: _Directions, maxima: Int16[Tensor, "tiles n"], k: int, signed: bool, others: bool
) -> Nearest:
    """Phase one takes for each row the k tiles of largest rough maxima: they bound the k-th best cosine from below. Phase
    two takes the others whose bound exceeds what is found by then."""
    cosines = x.rows.new_full((x.n, k), -2, dtype=torch.float32)
    best = Nearest(cosines, torch.full_like(cosines, y.n, dtype=torch.long))
    first = maxima.argmax(0)[None] if k == 1 else maxima.topk(min(k, y.n_tiles), dim=0).indices
    for tile in range(y.n_tiles):
        _take(best, x, y, tile, (first == tile).any(0), signed, others)
    # The inputs' rounding, then that of both products' sums, d 2^-24 each in any order, and of the lengths.
    error = (x.error + y.error.max() * (1 + x.error)).squeeze(1) + 2**-23 * (x.rows.shape[1] + 16)
    for tile in range(y.n_tiles):
        need = ((best.cosines[:, -1] - error) / (1 + _ROUNDING)).clamp_min(0)
        bits = (need.view(torch.int32) >> 16).to(torch.int16)  # rounded down
        wanted = (maxima[tile] >= bits.masked_fill(need <= 0, _ALL)) & (first != tile).all(0)
        _take(best, x, y, tile, wanted, signed, others)
    return Nearest(best.cosines.clamp_max_(1), best.indices)


def _take(best: Nearest, x: _Directions, y: _Directions, tile: int, rows: Tensor, signed: bool, others: bool) -> None:
    """Put the cosines of some rows of x with a tile of y among the best, in place. rows: (n,) bool."""
    here = slice(tile * TILE, min((tile + 1) * TILE, y.n))
    wanted = rows.nonzero().squeeze(1)
    if not len(wanted):
        return
    columns, indices = y.unit(here).T, torch.arange(here.start, here.stop, device=rows.device)
    for some in wanted.split(ROWS):
        left = torch.index_select(x.rows, 0, some, out=x.chosen[: len(some)]).float()
        cosines = (left @ columns).mul_(x.scale[some])
        if signed:
            cosines = cosines.abs_()
        if others:
            cosines.masked_fill_(some[:, None] == indices, -2)
        values, columns_of = cosines.topk(min(best.cosines.shape[1], cosines.shape[1]), dim=1)
        values = torch.cat([best.cosines[some], values], 1)
        places = torch.cat([best.indices[some], columns_of + here.start], 1)
        best.cosines[some], top = values.topk(best.cosines.shape[1], dim=1)
        best.indices[some] = places.gather(1, top)
