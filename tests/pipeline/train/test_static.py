"""Codes of static shape, on CPU tensors, against the codes that the CPU path makes of the same."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.train import contract, kernels, static
from pipeline.train import learner as learning
from pipeline.train.codes import Sparse
from pipeline.train.contract import silence
from pipeline.train.kernels import Entries, Shared, Transposed
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.on_cpu import GROUP
from pipeline.train.products import Products
from pipeline.train.ranks import Parallel, Ranks
from pipeline.train.selections import Largest, LargestMagnitude, LargestOfBatch, Selection
from pipeline.train.threads import in_threads
from tests.conftest import planted_rows, source_of
from tests.pipeline.train.conftest import operations


@pytest.fixture
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static, "wanted", lambda x: True)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def dense(code: Entries, d_sae: int) -> Tensor:
    """By the offsets, as the products read a code."""
    z = torch.zeros(len(code.offsets) - 1, d_sae)
    for row, (low, high) in enumerate(itertools.pairwise(code.offsets.tolist())):
        assert len(set(code.indices[low:high].tolist())) == high - low
        z[row, code.indices[low:high]] = code.values[low:high]
    return z


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("n", "k"), [(960, 7), (997, 7), (64, 60), (64, 64), (2048, 1), (130, 8), (24_576, 32)], ids=str
)
@pytest.mark.parametrize("kind", ["ordinary", "equal", "negative", "one hot group", "in the rest", "not finite"])
def test_the_largest_are_torchs_topk(dtype: torch.dtype, n: int, k: int, kind: str) -> None:
    """It would have caught a bound that drops what equals it, a rest of n by the groups' width that is never looked at, a
    group looked at twice, places of the wrong group, and fewer groups than k."""
    x = normal(9, n).to(dtype)
    if kind == "equal":  # far more of them equal the k-th than there is room for
        x = (x * 2).round()
    if kind == "negative":
        x = -x.abs() - 1
    if kind == "one hot group":
        x[:, : min(64, n)] += 50
    if kind == "in the rest":
        x[:, -1] += 50
    if kind == "not finite":
        x[:, ::3] = -torch.inf
        x[0, 5] = torch.inf
    for maxima in (None, torch.stack([group.amax(1) for group in x.split(GROUP, dim=1)], dim=1)):
        values, places = static.largest(x, k, maxima)
        assert values.shape == places.shape == (9, k)
        assert torch.equal(values.sort(descending=True).values, x.topk(k, dim=-1).values)
        assert torch.equal(x.gather(1, places), values)
        assert all(len(set(row)) == k for row in places.tolist())


def test_few_of_the_numbers_are_sorted() -> None:
    """It would have caught a selection that falls back on sorting everything."""
    seen = sizes_of_topk(lambda: static.largest(torch.empty(8192, 24_576, device="meta"), 32))
    assert max(seen) <= 24_576 // 16


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("d_sae", [1024, 1000])
@pytest.mark.parametrize("select", [Largest(3), LargestOfBatch(3, torch.zeros(()))], ids=repr)
def test_the_encoders_maxima_say_where_the_largest_are(
    select: Selection, d_sae: int, dtype: torch.dtype, as_on_a_device: None
) -> None:
    """It would have caught a selection that reads all pre-activations again for maxima that the encoder has made."""
    x, W_enc, b_enc = normal(17, 24), normal(d_sae, 24).flip(0), normal(d_sae)
    products, found = Products(dtype, dense=False), []
    names = operations(lambda: found.append(products.encode(x, W_enc, b_enc, select, torch.zeros(()))))
    fits = d_sae % GROUP == 0 or isinstance(select, Largest)
    assert ("unmix.encode" in names, "aten.amax" in names) == (fits, not fits)
    pre, z = found[0].pre.float().relu(), dense(found[0].entries, d_sae)
    exact = pre.topk(3, dim=1) if isinstance(select, Largest) else pre.flatten().topk(3 * 17)
    assert torch.equal(z[z != 0].sort().values, exact.values.flatten().sort().values)
    assert torch.equal(z[z != 0], pre[z != 0])


def test_no_selection_sorts_more_numbers_at_a_time_than_an_int32_counts() -> None:
    """It would have caught one topk over all pre-activations of a batch, 2³¹ of 16,384 rows and 131,072 latents."""
    pre = torch.empty(16_384, 131_072, dtype=torch.bfloat16, device="meta")
    for select in (Largest(32), LargestMagnitude(32), LargestOfBatch(32, torch.zeros((), device="meta"))):
        made: list[Entries] = []
        assert max(sizes_of_topk(lambda own=select, made=made: made.append(own.entries(pre)))) < 2**31
        assert made[0].values.shape == made[0].indices.shape == (16_384 * 32,)
        assert made[0].offsets.shape == (16_385,)


def sizes_of_topk(work) -> list[int]:
    """How many numbers each topk that the work does looks through at a time."""
    found: list[int] = []

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket is torch.ops.aten.topk:
                found.append(args[0].shape[-1])
            return func(*args, **(kwargs or {}))

    with Seen():
        work()
    assert found
    return found


@pytest.mark.parametrize("select", [Largest(5), LargestMagnitude(5), LargestOfBatch(5, torch.zeros(()))], ids=repr)
@pytest.mark.parametrize("d_sae", [40, 997])
def test_the_entries_are_those_of_the_cpu(select: Selection, d_sae: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a row or a latent that entries of static shape confuse, and negative entries kept as active."""
    pre = normal(33, d_sae) - (1.0 if d_sae == 40 else 0.0)
    pre[4] = -torch.linspace(1, 2, d_sae)
    expected = dense(select.entries(pre), d_sae)
    monkeypatch.setattr(static, "wanted", lambda x: True)
    code = select.entries(pre)
    assert len(code.values) == 33 * 5
    assert torch.equal(dense(code, d_sae), expected)


def test_the_largest_of_a_batch_that_equal_the_smallest_are_as_many_as_fit(as_on_a_device: None) -> None:
    """It would have caught a code that is longer, or lacks some, where many strengths are equal."""
    pre = torch.ones(6, 50)
    pre[:, :2] = 2.0
    z = dense(LargestOfBatch(4, torch.zeros(())).entries(pre), 50)
    assert (z == 2).sum() == 12
    assert (z == 1).sum() == 6 * 4 - 12


@pytest.mark.parametrize("parallel", ["data", "features"])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_of_a_batch_in_three_processes(parallel: Parallel, ties: bool, as_on_a_device: None) -> None:
    """It would have caught a process that keeps its own largest, more entries than k a token where strengths are equal, and
    rows or features that are charged to another process."""
    pre = normal(7, 50)
    pre = pre.clamp(max=1.0) if ties else pre
    parts = [
        slice(r, None, 3) if parallel == "data" else (slice(None), slice(50 * r // 3, 50 * (r + 1) // 3))
        for r in range(3)
    ]

    def select(ranks: Ranks) -> Tensor:
        own = pre[parts[ranks.rank]]
        return dense(LargestOfBatch(6, torch.zeros(())).entries(own, ranks), own.shape[1])

    z = torch.zeros(7, 50)
    for part, own in zip(parts, in_threads(3, parallel, select), strict=True):
        z[part] = own
    one = dense(LargestOfBatch(6, torch.zeros(())).entries(pre), 50)
    assert (z != 0).sum() == 7 * 6
    assert torch.equal(z.flatten().sort().values, one.flatten().sort().values)
    assert ties or torch.equal(z, one)
    assert (z[z != 0] == pre[z != 0]).all()


def test_packed_entries_are_those_that_are_not_zero(as_on_a_device: None) -> None:
    """It would have caught entries that move to another row, or that stay behind."""
    values = normal(21) * (normal(21) > 0.3)
    indices, offsets = torch.arange(21), torch.tensor([0, 7, 7, 16, 21])
    whole, code = Entries(values, indices, offsets), Entries(*static.packed(values, indices, offsets))
    n = int((values != 0).sum())
    assert len(code.values) == 21
    assert code.offsets[-1] == n
    assert not code.values[n:].any()
    assert torch.equal(dense(code, 21), dense(whole, 21))
    assert torch.equal(code.rows[:n], whole.rows[values != 0])


def test_the_transpose_leaves_zeros_out(as_on_a_device: None) -> None:
    """It would have caught a latent that is charged with what belongs to no row, and sums in an order that is not the
    batch's."""
    values = torch.tensor([1.0, 0.0, 3.0, 4.0, 0.0, 0.0])
    indices = torch.tensor([2, 0, 2, 1, 0, 0])
    found = Transposed(Entries(values, indices, torch.tensor([0, 2, 4])), 4)
    assert found.offsets.tolist() == [0, 0, 1, 3, 3]
    assert found.order[:3].tolist() == [3, 0, 2]
    assert torch.equal(found.times(values, torch.tensor([[1.0], [10.0]]))[:, 0], torch.tensor([0.0, 40.0, 31.0, 0.0]))


def test_a_latent_whose_entries_are_0_did_not_fire() -> None:
    """It would have caught dead features that are never dead, because what is left of a code of static shape names them."""
    entries = Entries(torch.tensor([0.0, 2.0, 0.0]), torch.tensor([0, 2, 0]), torch.tensor([0, 1, 2]))
    assert Sparse(entries, Shared(4)).fired().tolist() == [False, False, True, False]


@pytest.mark.parametrize("prefixes", [(40,), (10, 20, 40), (1, 2, 39, 40)], ids=str)
def test_prefixes_and_their_gradients_are_the_dense_ones(prefixes: tuple[int, ...], as_on_a_device: None) -> None:
    """It would have caught entries that are in another part of the code than their latents, or in no order in it, and
    gradients that come back in the order of the parts."""
    b, d, h = 21, 6, 40
    x, target = normal(2, b, d)
    products, weights = Products(dense=False), (normal(h, d), normal(h), normal(h, d).flip(0))

    def gradients(forward) -> list[Tensor]:
        leaves = [w.clone().requires_grad_() for w in weights]
        made, values = forward(*leaves)
        ((made - target).square().sum((1, 2)) @ torch.arange(1.0, 1 + len(prefixes)) + 0.3 * values.sum()).backward()
        return [made, *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    def by_masks(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor]:
        values, indices = (x @ W_enc.T + b_enc).topk(5, dim=-1)
        z = torch.zeros(b, h).scatter(-1, indices, values.relu())
        return torch.stack([z[:, :m] @ W_dec[:m] for m in prefixes]), z

    def by_entries(W_enc: Tensor, b_enc: Tensor, W_dec: Tensor) -> tuple[Tensor, Tensor]:
        code = products.encode(x, W_enc, b_enc, Largest(5), torch.zeros(()))
        return products.decode(code, W_dec, prefixes), code.entries.values  # type: ignore[attr-defined]

    for ours, theirs in zip(gradients(by_entries), gradients(by_masks), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("n_dead", [0, 30])
@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.family is not None])
def test_a_dictionary_learns_what_it_learns_on_a_cpu(name: str, n_dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught an auxiliary loss that is not 0 without dead features, is of living ones, or gives other
    gradients; a threshold, a density, a gradient or a count of tokens that follows what belongs to no row; and a step in one
    pass (fused.py) that loses a gradient, counts a step twice, or keeps rows at no unit length or where they may have any."""
    monkeypatch.setattr(learning, "SMALL", 0)
    x, method, found = torch.from_numpy(planted_rows(1024, 24)), METHODS[name], []
    settings: dict[str, Any] = {"d_sae": 1024, "lr": 2e-3, "dead_after_tokens": 10**6} | (
        {"k": 4} if "k" in method.label else {}
    )
    monkeypatch.setattr(kernels, "dots", with_anything_behind(kernels.dots))
    for on_device in (False, True):
        monkeypatch.setattr(static, "wanted", lambda x, own=on_device: own)
        assert method.family is not None
        own = FamilyLearner(method.family, method.family.Config(**settings), source_of(x), "cpu")
        own.dtype = torch.float32
        if n_dead:
            silence(own.model, n_dead)
            own.model.tokens_since_fired[:n_dead] = 2 * 10**6
            if own.model.biased:  # what is dead has something to say
                own.model.b_enc.data[:n_dead] = torch.linspace(0.02, 0.03, n_dead)
        parts = [own.step(x[step * 128 :][:128], step, 20) for step in range(8)]
        found.append((own.state(), parts))
    if "aux_k" in method.config.model_fields:
        assert bool(found[0][1][0]["aux"]) == bool(n_dead)
    for name, tensor in found[0][0].items():
        torch.testing.assert_close(found[1][0][name].float(), tensor.float(), rtol=1e-3, atol=1e-4, msg=name)
    for ours, theirs in zip(found[1][1], found[0][1], strict=True):
        assert {k: float(v) for k, v in ours.items()} == pytest.approx({k: float(v) for k, v in theirs.items()}, 1e-3)


def with_anything_behind(dots: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """dots, as a device's kernel makes it, which leaves what belongs to no row as its memory was."""

    def made(a: Tensor, table: Tensor, code: Entries) -> Tensor:
        found = dots(a, table, code).clone()
        found[int(code.offsets[-1]) :] = torch.nan
        return found

    return made


@pytest.mark.parametrize("name", ["topk", "abs_topk", "batch_topk"])
def test_processes_learn_what_one_learns(name: str, as_on_a_device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught entries of static shape of which other processes hold larger ones."""
    monkeypatch.setattr(learning, "SMALL", 0)
    family = METHODS[name].family
    assert family is not None
    config = family.Config.model_validate({"d_sae": 48, "k": 4, "lr": 1e-2, "dead_after_tokens": 500})
    contract._check_divides(contract.Subject(family, config, contract.SITES["autoencoder"]))
