"""Codes of static shape, for devices that work behind the host: no shape hangs on a value, which the host would wait for.

What has a length that the values decide is kept in arrays of the greatest length that it can have, and what is not used of
them lies behind the last offset.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.train.on_cpu import GROUP


def wanted(x: Tensor) -> bool:
    """Whether x is on such a device: every one but the CPU."""
    return x.device.type != "cpu"


def largest(
    x: Float[Tensor, "rows n"], k: int, maxima: Float[Tensor, "rows groups"] | None = None
) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """(values, places) of the k largest of each row, in any order; of those that equal the smallest, which ones torch.topk
    chooses.

    The k-th largest of the maxima over groups is a bound from below, so that k groups hold k largest: √(n/k) wide, these
    hold as many numbers as there are groups, and 2 √(nk) of n numbers are sorted. maxima: over groups of GROUP numbers, in
    the dtype of x, where they are there already (operators.encode); a last group that is not whole is not looked at.
    """
    n = x.shape[1]
    width = GROUP if maxima is not None else 1 << max(0, round(0.5 * math.log2(n / k)))
    n_groups = n // width
    if width < _NARROWEST or n_groups < k:
        values, places = x.topk(k, dim=-1, sorted=False)
        return values, places
    rest = n_groups * width
    grouped = x[:, :rest].unflatten(1, (n_groups, width))
    maxima = grouped.amax(-1) if maxima is None else maxima[:, :n_groups]
    groups = maxima.topk(k, dim=-1, sorted=False).indices
    found = grouped.gather(1, groups[..., None].expand(-1, -1, width)).flatten(1)
    among = found if rest == n else torch.cat([found, x[:, rest:]], dim=1)
    values, chosen = among.topk(k, dim=-1, sorted=False)
    slot = chosen // width
    group = torch.where(slot < k, groups.gather(1, slot.clamp(max=k - 1)), slot - k + n_groups)
    return values, group * width + chosen % width


_NARROWEST = 4  # narrower groups leave half of the numbers, for two more passes over them


def by_maxima(n: int, k: int) -> bool:
    """Whether the k largest of n numbers are found with less work by maxima over groups of GROUP that are there already:
    k groups hold a quarter of the numbers at most."""
    return n >= 4 * GROUP * k


def offsets_of(ordered: Tensor, n: int) -> Int64[Tensor, " offsets"]:
    """(n + 1,) where each of the numbers 0 to n - 1 begins in a rising sequence, and where the last one ends."""
    return torch.searchsorted(ordered, torch.arange(n + 1, dtype=ordered.dtype, device=ordered.device))


def rows_of(offsets: Int64[Tensor, " offsets"], n_entries: int) -> Int64[Tensor, " n_entries"]:
    """The row of each entry; of what lies behind the last row, the last row."""
    entries = torch.arange(n_entries, device=offsets.device)
    return torch.searchsorted(offsets[1:], entries, right=True).clamp_(max=len(offsets) - 2)


def packed(
    values: Float[Tensor, " n_entries"], indices: Int64[Tensor, " n_entries"], offsets: Int64[Tensor, " offsets"]
) -> tuple[Float[Tensor, " n_entries"], Int64[Tensor, " n_entries"], Int64[Tensor, " offsets"]]:
    """The entries that are not 0, in their order and side by side; behind them the values and indices are 0.

    The arrays keep their length, and products take the time of what is left.
    """
    found = values != 0
    before = F.pad(found.cumsum(0), (1, 0))
    place = torch.where(found, before[:-1], len(values))  # what is not kept goes to one place more, which is cut off

    def moved(x: Tensor) -> Tensor:
        return x.new_zeros(len(x) + 1).scatter_(0, place, x)[:-1]

    return moved(values), moved(indices), before[offsets]
