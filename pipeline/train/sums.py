"""What the processes that train a dictionary together make of a step's parts."""

from collections.abc import Callable, Hashable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pipeline.train import static
from pipeline.train.families.base import Family
from pipeline.train.ranks import Ranks

_BUCKET_BYTES = 16 << 20  # a sum's start costs as much as some hundred KB; larger copies only cost memory
_SENT_NARROW = 1 << 20  # bytes from which a gradient is sent in fewer: it takes two exchanges in the place of one sum


class Sums:
    """Over rows, or over features, whichever the processes divide."""

    def __init__(self, model: Family, ranks: Ranks) -> None:
        self.model, self.ranks = model, ranks

    def backward(
        self, total: Float[Tensor, ""], parts: dict[str, Tensor], fired: Bool[Tensor, " d_sae"], share: float
    ) -> tuple[dict[str, Tensor], Bool[Tensor, " d_sae"]]:
        """Gradients of total, parts of the loss and what fired, of a share of the batch, become those of all of it. What is
        added up starts while other gradients are still being made."""
        parts = {name: part.detach() for name, part in parts.items()}
        if not self.ranks.splits_rows:
            (total * share).backward()
            return parts, fired
        means = torch.stack([part.float() for part in parts.values()]) * share
        n_fired = fired.float()
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        narrow = static.wanted(means) and self.model.products.dtype == torch.bfloat16
        buckets = Buckets(self.ranks, [*learned, means, n_fired], torch.bfloat16 if narrow else torch.float32)
        hooks = [parameter.register_post_accumulate_grad_hook(buckets.arrived) for parameter in learned]
        try:
            (total * share).backward()
        finally:
            for hook in hooks:
                hook.remove()
        for made in (means, n_fired):
            buckets.arrived(made)
        buckets.end()
        return dict(zip(parts, means.unbind(), strict=True)), n_fired > 0

    @torch.no_grad()
    def of_features(
        self, parts: dict[str, Tensor], silent: Int64[Tensor, " d_sae"], dead_after: int
    ) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """(parts with the "l0" of all features, how many are dead, the longest silence), in one exchange. silent: tokens
        since each feature held here fired."""
        l0, n_dead, longest = parts["l0"], (silent > dead_after).sum(), silent.max()
        if self.ranks.splits_features:
            own = torch.stack([x.double() for x in (l0, n_dead, longest)])  # float64 holds each exactly
            l0s, counts, silences = torch.stack(self.ranks.each(own)).unbind(1)
            l0, n_dead, longest = l0s.sum().to(l0.dtype), counts.sum().to(n_dead.dtype), silences.max()
        return parts | {"l0": l0}, n_dead, longest


class Buckets:
    """Sums over all processes, in the place of what is summed: small ones together, each bucket as soon as all of it and
    the buckets before it are there. So they start in one order in all processes, whatever is there first.

    tensors: parameters, of which gradients are summed, and others, which are summed themselves. sent: the dtype in which
    large gradients go to other processes; sums are float32.
    """

    def __init__(self, ranks: Ranks, tensors: Sequence[Tensor], sent: torch.dtype = torch.float32) -> None:
        self._ranks, self._sent, self._n_started = ranks, sent, 0
        self._buckets = _buckets(tensors, self._is_narrow)
        self._there: set[int] = set()
        self._under_way: list[tuple[list[Tensor], Tensor, Callable[[], object]]] = []
        self._narrow: list[_NarrowSum] = []

    def arrived(self, x: Tensor) -> None:
        """x, or its gradient, is what this process adds."""
        self._there.add(id(x))
        while self._n_started < len(self._buckets) and self._is_there(self._buckets[self._n_started]):
            self._start()

    def end(self) -> None:
        """Wait for all sums. What has no gradient is left out, in every process."""
        while self._n_started < len(self._buckets):
            self._start()
        for narrow in self._narrow:
            narrow.add_up()
        for members, flat, wait in self._under_way:
            wait()
            for x, found in zip(members, flat.split([x.numel() for x in members]) if members else (), strict=True):
                x.copy_(found.view_as(x))

    def _is_there(self, bucket: list[Tensor]) -> bool:
        return all(id(x) in self._there for x in bucket)

    @torch.no_grad()
    def _start(self) -> None:
        bucket = [x for x in self._buckets[self._n_started] if id(x) in self._there]
        self._n_started += 1
        if not bucket:
            return
        members = [_summed(x) for x in bucket]
        whole = len(members) == 1 and members[0].is_contiguous()
        flat = members[0] if whole else torch.cat([x.flatten() for x in members])
        before = list(self._narrow)
        if self._is_narrow(bucket[0]):
            self._narrow.append(_NarrowSum(self._ranks, flat, self._sent))
            wait = self._narrow[-1].wait
        else:
            wait = self._ranks.started(flat)
        for narrow in before:  # what is there by now, while the links have this bucket to send
            narrow.add_up()
        self._under_way.append(([] if whole else members, flat, wait))

    def _is_narrow(self, x: Tensor) -> bool:
        return self._sent != torch.float32 and isinstance(x, nn.Parameter) and x.nbytes >= _SENT_NARROW


class _NarrowSum:
    """A sum, in the place of x, of float32 numbers that are sent in another dtype: each process adds up its part of all of
    them in float32, and sends the sums.

    Each number is rounded when it is sent and when its sum is, however many processes there are. A sum of bfloat16 that
    goes round a ring is rounded by every process that it passes.
    """

    def __init__(self, ranks: Ranks, x: Tensor, sent: torch.dtype) -> None:
        self._ranks, self._x, self._sent = ranks, x, sent
        parts, missing = x.flatten().to(sent), -x.numel() % ranks.size
        parts = F.pad(parts, (0, missing)) if missing else parts
        self._received, self._wait = ranks.exchanged(parts.view(ranks.size, -1))
        self._sums: Tensor | None = None

    def add_up(self) -> None:
        if self._sums is None:
            self._wait()
            own = self._received.sum(0, dtype=torch.float32).to(self._sent)
            self._sums, self._wait = self._ranks.shared(own)

    @torch.no_grad()
    def wait(self) -> None:
        self.add_up()
        self._wait()
        assert self._sums is not None
        self._x.copy_(self._sums[: self._x.numel()].view_as(self._x))


def _summed(x: Tensor) -> Tensor:
    if not isinstance(x, nn.Parameter):
        return x
    assert x.grad is not None
    return x.grad


def _buckets(tensors: Sequence[Tensor], kind: Callable[[Tensor], Hashable] = lambda x: None) -> list[list[Tensor]]:
    """In their order, of one dtype, device and kind each, of no more than _BUCKET_BYTES or one tensor."""
    buckets: list[list[Tensor]] = []
    filling: dict[Hashable, tuple[list[Tensor], int]] = {}
    for x in tensors:
        alike = x.dtype, x.device, kind(x)
        own, n_bytes = filling.get(alike, ([], 0))
        if not own or n_bytes + x.nbytes > _BUCKET_BYTES:
            own, n_bytes = [], 0
            buckets.append(own)
        own.append(x)
        filling[alike] = own, n_bytes + x.nbytes
    return buckets
