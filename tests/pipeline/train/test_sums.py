"""Sums over processes: in buckets, one for each step, as if each were taken alone."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist

from pipeline.train import sums as module
from pipeline.train.contract import SITES, Subject
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.ranks import Ranks
from pipeline.train.sums import Buckets, _buckets
from pipeline.train.threads import in_threads
from tests.processes import in_processes


def tensors(rank: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    found = [torch.randn(shape, generator=generator) for shape in ((40, 30), (), (7,), (30, 20), (3, 2, 1))]
    return [*found, found[0].T, found[1].bfloat16(), torch.arange(5) + rank, torch.tensor(rank), found[3].bfloat16()]


def summed(ranks: Ranks, bucket_bytes: int) -> list[torch.Tensor]:
    module._BUCKET_BYTES = bucket_bytes
    found = [x.clone() for x in tensors(ranks.rank)]
    buckets = Buckets(ranks, found)
    for i in (4, 0, 9, 1, 2, 3, 5, 6, 7, 8) if ranks.rank else range(10):  # in another order in each process
        buckets.arrived(found[i])
    buckets.end()
    return found


@pytest.mark.parametrize("bucket_bytes", [0, 3000, 1 << 20])
def test_each_becomes_the_sum_over_processes(bucket_bytes: int) -> None:
    found = in_processes(3, "data", summed, bucket_bytes)
    for sums in zip(*found, *(tensors(rank) for rank in range(3)), strict=True):
        own, given = sums[:3], sums[3:]
        assert all(torch.equal(own[0], x) for x in own[1:])
        tolerance = 1e-2 if own[0].dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(own[0], given[0] + given[1] + given[2], rtol=tolerance, atol=tolerance)
    again = in_processes(3, "data", summed, bucket_bytes)
    assert all(torch.equal(a, b) for a, b in zip(found[0], again[0], strict=True))


def test_a_bucket_has_one_dtype_and_no_more_bytes_than_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BUCKET_BYTES", 100)
    a, b, c = torch.zeros(10), torch.zeros(15), torch.zeros(100)
    d, e = torch.zeros(10, dtype=torch.bfloat16), torch.zeros(40, dtype=torch.bfloat16)
    found = [[id(x) for x in bucket] for bucket in _buckets([a, d, b, c, e])]
    assert found == [[id(a), id(b)], [id(d), id(e)], [id(c)]]


def collectives(ranks: Ranks) -> tuple[Counter, Counter]:
    """Of the first step, and of each of those after it: how many there are of each kind."""
    subject = Subject(TopK, TopKConfig(d_sae=50, k=4, lr=1e-2), SITES["autoencoder"])
    learner, counts = subject.learner(ranks), Counter()

    def counted(name: str) -> None:
        real = getattr(dist, name)

        def call(*args, **options):
            counts[name] += 1
            return real(*args, **options)

        setattr(dist, name, call)

    for name in ("all_reduce", "all_gather", "broadcast", "barrier", "all_gather_object", "broadcast_object_list"):
        counted(name)
    subject.learn(learner, range(1))
    first = Counter(counts)
    subject.learn(learner, range(1, 6))
    return first, counts - first


def test_a_step_takes_one_sum_of_all_that_its_rows_have_made() -> None:
    """Gradients, log and what fired: one bucket here."""
    for first, later in in_processes(2, "data", collectives):
        assert set(first) == {"all_reduce"}
        assert later == {"all_reduce": 5}


def learned(ranks: Ranks, overlapped: bool) -> dict[str, torch.Tensor]:
    module._BUCKET_BYTES = 0
    if not overlapped:
        Buckets._is_there = lambda self, bucket: False
    subject = Subject(TopK, TopKConfig(d_sae=50, k=4, lr=1e-2, dead_after_tokens=200), SITES["autoencoder"])
    learner = subject.learner(ranks)
    subject.learn(learner, range(6))
    return learner.state()


def test_sums_that_start_early_are_the_same() -> None:
    """It would have caught a gradient that is sent before all of it is there, and one that is read before its sum is."""
    early, late = (in_processes(2, "data", learned, overlapped) for overlapped in (True, False))
    for name, tensor in late[0].items():
        assert all(torch.equal(found[name], tensor) for found in (*early, late[1])), name


def test_a_sum_starts_before_the_last_gradient_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught sums that wait for the end of backward."""
    monkeypatch.setattr(module, "_BUCKET_BYTES", 0)
    seen: list[set[str]] = []

    class Watching(Ranks):
        def started(self, x: torch.Tensor) -> Callable[[], object]:
            seen.append({name for name, p in model.named_parameters() if p.grad is not None})
            return lambda: None

        def reduced(self, x: torch.Tensor, by: str) -> torch.Tensor:
            return x

    subject = Subject(TopK, TopKConfig(d_sae=50, k=4, lr=1e-2), SITES["autoencoder"])
    learner = subject.learner(Watching(0, 2))
    model = learner.model
    subject.learn(learner, range(1))
    assert seen[0] == {"W_dec"}
    assert seen[-1] == {"W_dec", "W_enc", "b_enc", "b_dec"}
    assert len(seen) == 4 + 2  # what is logged, and what fired


def narrow(ranks: Ranks, n: int) -> torch.Tensor:
    found = given(ranks.rank, n)
    found.grad, other = found.detach().clone(), torch.tensor([1.0, 2.0])
    buckets = Buckets(ranks, [found, other], torch.bfloat16)
    for x in (found, other):
        buckets.arrived(x)
    buckets.end()
    assert torch.equal(other, ranks.size * torch.tensor([1.0, 2.0]))
    return found.grad


def given(rank: int, n: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(n, 7, generator=torch.Generator().manual_seed(rank)))


def assert_rounded_twice(found: list[torch.Tensor], n: int) -> None:
    numbers = torch.stack([given(rank, n).detach() for rank in range(len(found))])
    expected = numbers.bfloat16().sum(0, dtype=torch.float32).bfloat16().float()
    assert all(torch.equal(own, expected) for own in found)
    exact, by_size = numbers.double().sum(0), numbers.double().abs().sum(0)
    assert ((expected - exact).abs() <= 1.01 * 2**-8 * (by_size + exact.abs())).all()


@pytest.mark.parametrize("n_ranks", [2, 8])
def test_large_gradients_go_in_bfloat16_and_are_added_up_in_float32(
    n_ranks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught sums that are rounded at each process, a part that goes to the wrong one, and processes that end
    with other bits. 3 · 7 numbers are not divisible by 2 or 8."""
    monkeypatch.setattr(module, "_SENT_NARROW", 0)
    assert_rounded_twice(in_threads(n_ranks, "data", lambda ranks: narrow(ranks, 3)), 3)
    assert_rounded_twice(in_threads(n_ranks, "data", lambda ranks: narrow(ranks, 300)), 300)


def narrow_in_a_process(ranks: Ranks) -> torch.Tensor:
    module._SENT_NARROW = 0
    return narrow(ranks, 5)


def test_processes_exchange_bfloat16() -> None:
    """It would have caught collectives that are not those of the threads."""
    assert_rounded_twice(in_processes(2, "data", narrow_in_a_process), 5)
