import itertools

import pytest
import torch

from pipeline.train import kernels, static
from pipeline.train import products as making
from pipeline.train.codes import Dense, Sparse
from pipeline.train.dense_cpu import column_counts
from pipeline.train.kernels import fast_dtype, matmul
from pipeline.train.products import Products
from pipeline.train.selections import Largest, LargestMagnitude, LargestOfBatch, Positive, Selection

SPARSE, NO_DENSITY = Products(dense=False), torch.zeros(())


def sparse_code(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, select: Selection) -> Sparse:
    code = SPARSE.encode(x, W_enc, b_enc, select, NO_DENSITY)
    assert isinstance(code, Sparse)
    return code


@pytest.mark.parametrize("kind", ["topk", "positive"])
def test_sparse_forward_and_gradients_are_the_dense_ones(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    b, d, h, k = 33, 10, 40, 5
    x, target = torch.randn(2, b, d, generator=generator)
    make = lambda: [  # noqa: E731
        t.clone().requires_grad_()
        for t in (
            torch.randn(h, d, generator=torch.Generator().manual_seed(1)),
            torch.randn(h, generator=torch.Generator().manual_seed(2)) - 3,
            torch.randn(h, d, generator=torch.Generator().manual_seed(3)),
        )
    ]

    def loss_of(x_hat: torch.Tensor, l1: torch.Tensor) -> torch.Tensor:
        return (x_hat - target).square().sum() + 0.3 * l1

    W_enc, b_enc, W_dec = dense = make()
    pre = x @ W_enc.T + b_enc
    if kind == "topk":
        values, indices = pre.topk(k, dim=-1)
        z = torch.zeros_like(pre).scatter(-1, indices, values.relu())
    else:
        z = pre.relu()
    loss_of(z @ W_dec, (z * W_dec.norm(dim=-1)).sum()).backward()

    sparse = make()
    code = sparse_code(x, *sparse[:2], Largest(k) if kind == "topk" else Positive())
    x_hat = SPARSE.decode(code, sparse[2])[0]
    loss_of(x_hat, len(x) * code.total(weights=sparse[2].norm(dim=-1))).backward()

    torch.testing.assert_close(x_hat, z @ W_dec, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_prefixes_and_their_gradients_are_the_dense_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    b, d, h, prefixes = 21, 6, 40, (10, 20, 40)
    x, target = torch.randn(2, b, d, generator=generator)
    weights = [torch.randn(s, generator=generator) for s in ((h, d), (h,), (h, d))]

    def gradients(forward) -> list[torch.Tensor]:
        leaves = [w.clone().requires_grad_() for w in weights]
        outs, values = forward(*leaves)
        loss = (torch.stack(outs) - target).square()
        (loss.sum((1, 2)) @ torch.tensor([1.0, 2.0, 3.0]) + 0.3 * values.sum()).backward()
        return [outs[0], outs[1], outs[2], *(leaf.grad for leaf in leaves)]

    def dense(W_enc, b_enc, W_dec):
        values, indices = (x @ W_enc.T + b_enc).topk(5, dim=-1)
        z = torch.zeros(b, h).scatter(-1, indices, values.relu())
        return [z[:, :m] @ W_dec[:m] for m in prefixes], z

    def sparse(W_enc, b_enc, W_dec):
        code = sparse_code(x, W_enc, b_enc, Largest(5))
        return list(SPARSE.decode(code, W_dec, prefixes)), code.entries.values

    for ours, theirs in zip(gradients(sparse), gradients(dense), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_dense_positive_codes_have_the_sums_counts_and_gradients_of_relu() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(300, 10, generator=generator), torch.randn(40, generator=generator)
    W_enc, b_enc = torch.randn(40, 10, generator=generator), torch.randn(40, generator=generator) - 1
    W_enc[3], b_enc[3] = 0.0, -1.0
    ours, theirs = ([t.clone().requires_grad_() for t in (W_enc, b_enc)] for _ in range(2))
    code = SPARSE.encode(x, *ours, Positive(), torch.ones(()))
    assert isinstance(code, Dense)
    z = (x @ theirs[0].T + theirs[1]).relu()
    torch.testing.assert_close(code.z, z)
    torch.testing.assert_close(code.total(weights=weights), (z @ weights).mean())
    assert torch.equal(code.l0(), (z != 0).sum() / 300)
    assert torch.equal(code.fired(), (z != 0).any(0))
    assert not code.fired()[3]
    (code.total(weights=weights) + code.z.square().mean()).backward()
    ((z @ weights).mean() + z.square().mean()).backward()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_code_that_is_no_number_stays_none(dtype: torch.dtype) -> None:
    W = torch.full((2, 3), torch.nan)
    code = Products(dtype, dense=False).encode(torch.ones(4, 3), W, torch.zeros(2), Positive(), torch.ones(()))
    assert isinstance(code, Dense)
    assert code.z.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_columns_are_counted(dtype: torch.dtype) -> None:
    x = torch.randn(600, 7, generator=torch.Generator().manual_seed(0)).relu().to(dtype)
    x[:, 2], x[:, 3] = 1.0, -0.0
    assert torch.equal(column_counts(x), (x != 0).sum(0))


@pytest.mark.parametrize("k", [1, 12, 80])  # sparse, dense, more than there are
@pytest.mark.parametrize("kind", [Largest, LargestMagnitude])
def test_the_code_by_some_latents_has_the_values_and_gradients_of_a_dictionary_of_these_alone(
    kind: type[Largest] | type[LargestMagnitude], k: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(2, 50, 10, generator=generator)
    weights = [torch.randn(s, generator=generator) for s in ((120, 10), (120,), (120, 10))]
    latents, select = torch.randperm(120, generator=generator) < 70, kind(k)

    def gradients(make) -> list[torch.Tensor]:
        leaves = [w.clone().requires_grad_() for w in weights]
        x_hat = make(*leaves)
        (x_hat - target).square().sum().backward()
        return [x_hat, *(leaf.grad for leaf in leaves)]

    def among(W_enc, b_enc, W_dec):
        code = SPARSE.encode_among(latents, x, W_enc, b_enc, select, sparse_code(x, W_enc, b_enc, Largest(3)))
        assert isinstance(code, Sparse) == (k == 1)
        return SPARSE.decode(code, W_dec)[0]

    def alone(W_enc, b_enc, W_dec):
        return select.dense(x @ W_enc[latents].T + b_enc[latents]) @ W_dec[latents]

    for ours, theirs in zip(gradients(among), gradients(alone), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("k", [1, 30, 59, 60, 70])
def test_a_mask_of_the_largest_has_as_many_as_there_are_and_they_are_the_largest(k: int, dtype: torch.dtype) -> None:
    pre = torch.randn(70, 60, generator=torch.Generator().manual_seed(0))
    pre = (pre * 3).round().to(dtype)  # far more of them equal the k-th than there is room for
    pre[3] = -1.0
    mask = Largest(k).mask(pre)
    expected = pre.topk(min(k, 60), dim=-1).values.relu()
    assert torch.equal(mask.sum(-1), (expected > 0).sum(-1))
    assert torch.equal(torch.where(mask, pre, 0).sort(-1, descending=True).values[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("guess", [0.0, 0.3, 50.0])
@pytest.mark.parametrize("k", [3, 30])
def test_the_largest_of_a_batch_whatever_was_guessed(guess: float, k: int) -> None:
    pre = torch.randn(17, 40, generator=torch.Generator().manual_seed(0))
    code = LargestOfBatch(k, torch.tensor(guess)).entries(pre)
    expected = pre.flatten().topk(17 * k).values
    expected = expected[expected > 0]
    assert torch.equal(code.values.sort(descending=True).values, expected)
    dense = torch.zeros_like(pre)
    for row in range(17):
        own = slice(int(code.offsets[row]), int(code.offsets[row + 1]))
        dense[row, code.indices[own]] = code.values[own]
    assert torch.equal(dense, pre * (pre >= expected.min()))


@pytest.mark.parametrize("prefixes", [(40,), (10, 20, 40)], ids=str)
def test_tables_in_bfloat16_round_each_number_that_is_gathered_once(
    prefixes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device, with the operators' forms of a CPU. Reconstructions and gradients are as far from those of float32 tables
    as 2⁻⁸ of each number gathered allows. It would have caught a table that is not rounded, one of the wrong
    numbers, and one that a CPU rounds."""
    b, d, h, k, u = 64, 6, 40, 5, 2**-8
    generator = torch.Generator().manual_seed(0)
    x, W_enc, b_enc, W_dec = (torch.randn(s, generator=generator) for s in ((b, d), (h, d), (h,), (h, d)))
    weights_of_loss = torch.randn(len(prefixes), b, d, generator=generator)
    products, found = Products(torch.bfloat16, dense=False), []
    assert kernels.gathered(W_dec, torch.bfloat16) is W_dec
    monkeypatch.setattr(static, "wanted", lambda x: True)
    for gathered in (lambda table, dtype: table.detach(), kernels.gathered):
        monkeypatch.setattr(kernels, "gathered", gathered)
        monkeypatch.setattr(making, "gathered", gathered)
        leaves = [W.clone().requires_grad_() for W in (W_enc, b_enc, W_dec)]
        code = products.encode(x, *leaves[:2], Largest(k), NO_DENSITY)
        assert isinstance(code, Sparse)
        made = products.decode(code, leaves[2], prefixes)
        (made * weights_of_loss).sum().backward()
        z = torch.zeros(b, h).index_put((code.entries.rows, code.entries.indices), code.entries.values.detach())
        found.append([z, made.detach(), leaves[2].grad, leaves[0].grad])
    z = found[0][0].abs()
    assert torch.equal(found[1][0], found[0][0])
    inside = torch.arange(h) < torch.tensor(prefixes)[:, None]
    g = torch.einsum("pi,pbd->ibd", inside.float(), weights_of_loss)  # what each latent's row is weighed by
    to_code, at_most = torch.einsum("ibd,id->bi", g, W_dec).abs(), torch.einsum("ibd,id->bi", g.abs(), W_dec.abs())
    bounds = (
        torch.einsum("bi,pi,id->pbd", z, inside.float(), W_dec.abs()),
        torch.einsum("bi,ibd->id", z, g.abs()),
        (z > 0).float().mul(to_code + (1 + u) * at_most).T @ x.abs(),
    )
    for exact, rounded, bound in zip(found[0][1:], found[1][1:], bounds, strict=True):
        distance = (rounded - exact).abs()
        assert bool((distance <= u * bound + 1e-5).all())
        assert float(distance.norm()) > 0.01 * u * float(bound.norm())


def test_rows_without_an_active_feature_are_zero() -> None:
    W = torch.ones(3, 2)
    code = sparse_code(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), W, torch.zeros(3), Positive())
    assert SPARSE.decode(code, W).tolist() == [[[6.0, 6.0], [0.0, 0.0]]]
    assert code.entries.offsets.tolist() == [0, 3, 3]


def test_the_probe_names_a_dtype() -> None:
    assert fast_dtype("cpu") in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["ordinary", "equal", "negative", "odd width"])
def test_topk_is_torchs_topk(dtype: torch.dtype, kind: str) -> None:
    pre = torch.randn(70, 997 if kind == "odd width" else 960, generator=torch.Generator().manual_seed(0)).to(dtype)
    if kind == "equal":  # far more of them equal the k-th than there is room for
        pre = (pre * 2).round()
    if kind == "negative":
        pre = pre - 2.5
        pre[3] = -1.0
    k = 7
    code = Largest(k).entries(pre)
    expected = pre.topk(k, dim=-1).values.float()
    assert code.offsets.diff().max() <= k
    for i, (low, high) in enumerate(itertools.pairwise(code.offsets.tolist())):
        values, indices = code.values[low:high], code.indices[low:high]
        assert torch.equal(values.sort(descending=True).values, expected[i][expected[i] > 0])
        assert torch.equal(pre[i, indices].float(), values)
        assert len(indices.unique()) == len(indices)


@pytest.mark.parametrize("width", [40, 960])  # on a CPU the wide ones take another path
def test_the_largest_magnitudes_are_those_of_every_latent_and_its_opposite(width: int) -> None:
    pre, k = torch.randn(70, width, generator=torch.Generator().manual_seed(0)), 7
    both = Largest(k).dense(torch.cat([pre, -pre], dim=-1))
    expected = both[:, :width] - both[:, width:]
    assert (expected < 0).any()
    assert torch.equal(LargestMagnitude(k).dense(pre), expected)
    code = LargestMagnitude(k).entries(pre)
    assert torch.equal(torch.zeros(70, width).index_put((code.rows, code.indices), code.values), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_of_several_products_has_the_bits_that_it_has_alone(dtype: torch.dtype) -> None:
    """Products whose sums are long and whose results are small: two threads may divide the sums."""
    generator = torch.Generator().manual_seed(0)
    a, b, grad = (torch.randn(3, *shape, generator=generator) for shape in ((128, 6), (6, 16), (128, 16)))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        alone, together = ([t.clone().requires_grad_() for t in (a, b)] for _ in range(2))
        made = [matmul(*pair, dtype) for pair in zip(*alone, strict=True)]
        for own, g in zip(made, grad, strict=True):
            own.backward(g.to(dtype), inputs=alone)
        all_made = torch.vmap(lambda x, y: matmul(x, y, dtype))(*together)
        all_made.backward(grad.to(dtype))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(all_made, torch.stack(made))
    for one, other in zip(alone, together, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)
