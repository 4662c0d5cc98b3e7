"""Which pre-activations of a batch become its code."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.train import static
from pipeline.train.dense_cpu import bits
from pipeline.train.kernels import Entries
from pipeline.train.on_cpu import GROUP
from pipeline.train.ranks import ALONE, Ranks

Pre = Float[Tensor, "batch d_sae"]
Maxima = Float[Tensor, "batch groups"]


class Selection(ABC):
    """few: so little of a batch is selected that only that much need be kept, whatever the batch."""

    few: ClassVar[bool]

    @abstractmethod
    def dense(self, pre: Pre, ranks: Ranks = ALONE) -> Pre:
        """The code, 0 where nothing is selected. Differentiable; alone, the same operations whatever the numbers are."""

    @abstractmethod
    def entries(self, pre: Pre, ranks: Ranks = ALONE, maxima: Maxima | None = None) -> Entries:
        """The code without its zeros. No gradient. ranks: who holds the other rows, or features, of the batch. maxima: over
        groups of latents, as operators.encode makes them, where by_maxima asks for them."""

    def by_maxima(self, d_sae: int) -> bool:
        """Whether maxima over groups of latents say where what is selected lies, on a device."""
        return False


@dataclass(frozen=True)
class Positive(Selection):
    """ReLU: what is positive."""

    few = False

    def dense(self, pre: Pre, ranks: Ranks = ALONE) -> Pre:
        return pre.relu()

    def entries(self, pre: Pre, ranks: Ranks = ALONE, maxima: Maxima | None = None) -> Entries:
        return _entries(pre, pre > 0)


@dataclass(frozen=True)
class OfEachRow(Selection):
    """So many of each row."""

    k: int
    few = True

    @abstractmethod
    def mask(self, pre: Pre) -> Bool[Tensor, "batch d_sae"]:
        """Which are selected and not 0, on a CPU. No gradient."""


@dataclass(frozen=True)
class Largest(OfEachRow):
    """The k largest of each row; of those, the positive ones."""

    def mask(self, pre: Pre) -> Bool[Tensor, "batch d_sae"]:
        return _mask_of_largest(pre, self.k)

    def dense(self, pre: Pre, ranks: Ranks = ALONE) -> Pre:
        values, indices = pre.topk(min(self.k, pre.shape[-1]), dim=-1)
        if ranks.splits_features:
            values = values * ranks.kept_of_largest(values, self.k)
        return torch.zeros_like(pre).scatter(-1, indices, values.relu())

    def by_maxima(self, d_sae: int) -> bool:
        return static.by_maxima(d_sae, self.k)

    def entries(self, pre: Pre, ranks: Ranks = ALONE, maxima: Maxima | None = None) -> Entries:
        k = self.k
        if static.wanted(pre):
            values, indices = static.largest(pre, min(k, pre.shape[1]), maxima)
            if ranks.splits_features:
                values = torch.where(ranks.kept_of_largest(values, k), values, 0.0)
        elif ranks.splits_features:
            values, indices = pre.topk(min(k, pre.shape[1]), dim=-1)
            kept = ranks.kept_of_largest(values, k) & (values > 0)
            return Entries(values[kept].float(), indices[kept], F.pad(kept.sum(-1).cumsum(0), (1, 0)))
        elif pre.shape[1] >= 2 * _GROUPS_PER_K * k:
            return _largest(pre, k)
        else:
            values, indices = pre.topk(k, dim=-1, sorted=False)
        n, k = values.shape
        offsets = torch.arange(0, n * k + 1, k, device=pre.device)
        entries = Entries(values.float().relu_().flatten(), indices.flatten(), offsets)
        return Entries(*static.packed(*entries)) if ranks.splits_features else entries  # most are other processes'


@dataclass(frozen=True)
class LargestMagnitude(OfEachRow):
    """The k of largest magnitude of each row, with their signs."""

    def mask(self, pre: Pre) -> Bool[Tensor, "batch d_sae"]:
        return _mask_of_largest(pre.abs(), self.k)

    def dense(self, pre: Pre, ranks: Ranks = ALONE) -> Pre:
        return Largest(self.k).dense(pre.abs(), ranks) * pre.sign()

    def entries(self, pre: Pre, ranks: Ranks = ALONE, maxima: Maxima | None = None) -> Entries:
        found = Largest(self.k).entries(pre.abs(), ranks)
        return found._replace(values=torch.where(found.values > 0, pre[found.rows, found.indices].float(), 0.0))


@dataclass(frozen=True)
class LargestOfBatch(Selection):
    """The k · batch largest positive ones of the whole batch, and what equals the smallest of them.

    Of a code of static shape there is room for k · batch, in all processes together: of those that equal the smallest it has
    so many as fit, the first processes' first, and of one process which ones torch.topk chooses; where fewer are positive,
    the others of its entries are 0.

    guess: a number below which none of them is thought to lie; it costs time when it is wrong, and changes nothing.
    """

    k: int
    guess: Tensor
    few = True

    def dense(self, pre: Pre, ranks: Ranks = ALONE) -> Pre:
        smallest = pre.detach().relu().flatten().topk(min(self.k * len(pre), pre.numel())).values[-1]
        return pre.relu() * (pre >= smallest)

    def by_maxima(self, d_sae: int) -> bool:
        return d_sae % GROUP == 0 and static.by_maxima(d_sae, self.k)  # the groups of all rows, one after another

    def entries(self, pre: Pre, ranks: Ranks = ALONE, maxima: Maxima | None = None) -> Entries:
        n = self.k * ranks.n_rows(len(pre))
        if static.wanted(pre):
            return self._static(pre, n, ranks, maxima)
        guess = float(self.guess)
        code = _entries(pre, pre > guess)

        def found() -> int:
            return int(ranks.total(torch.tensor(len(code.values), device=pre.device)))

        if guess > 0 and found() < n:
            code = _entries(pre, pre > 0)
        if found() <= n:
            return code
        best = code.values.topk(min(n, len(code.values)), sorted=False).values
        kept = code.values >= torch.cat(ranks.gathered(best)).topk(n, sorted=False).values.min()
        offsets = F.pad(torch.bincount(code.rows[kept], minlength=len(pre)).cumsum(0), (1, 0))
        return Entries(code.values[kept], code.indices[kept], offsets)

    def _static(self, pre: Pre, n: int, ranks: Ranks, maxima: Maxima | None) -> Entries:
        batch, d_sae = pre.shape
        of_batch = None if maxima is None else maxima.reshape(1, -1)
        values, places = static.largest(pre.reshape(1, -1), min(n, pre.numel()), of_batch)
        if ranks.size > 1:
            values = torch.where(ranks.kept_of_largest(values, n), values, 0.0)
        place, order = places[0].sort()
        row = place // d_sae
        values, indices = values[0, order].float().relu_(), place - row * d_sae
        entries = Entries(values, indices, static.offsets_of(row, batch))
        return entries if ranks.size == 1 else Entries(*static.packed(*entries))  # most are other processes'


_GROUPS_PER_K = 6  # fewer let more through that is thrown away again, more cost more to look at


def _largest(pre: Tensor, k: int) -> Entries:
    """Largest on a CPU, by a bound from below: the k-th largest of the maxima over groups of latents.

    torch.topk takes a third of the time of the encoder's product (measured: 40 ms for 4096 rows of 6144, this 18).
    Positive floating-point numbers have the order of their bits read as integers, which NumPy partitions fast; negative
    ones come out as negative integers in the wrong order, and are not asked for.
    """
    integers = bits(pre)
    n, d_sae = integers.shape
    depth = d_sae // (_GROUPS_PER_K * k)
    width = d_sae // depth
    maxima = integers[:, : depth * width].unflatten(1, (depth, width)).amax(1).numpy()
    bound = _kth_largest(maxima, k).clip(min=1)  # the bits of the smallest positive number
    integers = integers.numpy()
    place = np.flatnonzero(integers >= bound[:, None])
    values, row = integers.reshape(-1).take(place), place // d_sae
    starts = _offsets(row, n)
    padded_width = max(k, int(np.diff(starts).max(initial=0)))
    padded = np.zeros(n * padded_width, values.dtype)
    padded[np.arange(len(row)) + (np.arange(n) * padded_width - starts[:-1]).take(row)] = values
    kth = _kth_largest(padded.reshape(n, padded_width), k)
    more = values > kth.take(row)
    equal = np.flatnonzero(values == kth.take(row))  # of these, the first ones are kept
    rank = np.arange(len(equal)) - _offsets(row[equal], n).take(row[equal])
    more[equal[rank < (k - np.bincount(row[more], minlength=n)).take(row[equal])]] = True
    place, row = place[more], row[more]
    found = torch.from_numpy(values[more]).view(pre.dtype).float()
    return Entries(found, torch.from_numpy(place - row * d_sae), torch.from_numpy(_offsets(row, n)))


def _mask_of_largest(pre: Tensor, k: int) -> Tensor:
    """Where the k largest of each row are, as far as they are positive; of equal ones the first. Of many, k is many too."""
    integers = bits(pre).numpy()
    n, width = integers.shape
    if k >= width:
        return torch.from_numpy(integers > 0)
    largest = np.partition(integers, width - k, axis=1)[:, width - k :]
    kth = largest[:, :1].clip(min=1)
    equal = np.flatnonzero(integers == kth)
    row = equal // width
    rank = np.arange(len(equal)) - _offsets(row, n).take(row)
    mask = integers >= kth
    mask.reshape(-1)[equal[rank >= (largest == kth).sum(1).take(row)]] = False
    return torch.from_numpy(mask)


def _kth_largest(x: np.ndarray, k: int) -> np.ndarray:
    return np.partition(x, x.shape[1] - k, axis=1)[:, x.shape[1] - k]


def _places(mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of what is true, on a CPU: several times as fast as torch.nonzero."""
    return np.divmod(np.flatnonzero(mask.numpy()), mask.shape[1])


def _offsets(row: np.ndarray, n: int) -> np.ndarray:
    """(n + 1,) where each row's entries begin."""
    return np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])


def _entries(pre: Tensor, mask: Tensor) -> Entries:
    """The pre-activations where the mask is true."""
    if pre.device.type == "cpu":
        row, index = (torch.from_numpy(places) for places in _places(mask))
    else:
        row, index = mask.nonzero(as_tuple=True)
    offsets = F.pad(torch.bincount(row, minlength=len(pre)).cumsum(0), (1, 0))
    return Entries(pre[row, index].float(), index, offsets)
