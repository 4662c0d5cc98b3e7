import numpy as np
import pytest
import torch

from pipeline.score.reconstruction import Reconstruction, Target, keep_largest


def test_fvu_of_perfect_mean_and_zero() -> None:
    x = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) + 3
    mean = x.double().mean(0)
    sums = {name: Reconstruction() for name in ("same", "mean", "zero")}
    for part in x.split(77):
        target = Target(part, mean)
        sums["same"].add(target, part)
        sums["mean"].add(target, mean.expand(len(part), 5))
        sums["zero"].add(target, torch.zeros_like(part))
    assert sums["same"].fvu == 0
    assert sums["mean"].fvu == pytest.approx(1, abs=1e-12)
    assert sums["zero"].normalized_mse == pytest.approx(1)
    assert sums["zero"].fvu > 5


def test_fvu_is_of_all_rows_not_a_mean_over_batches() -> None:
    mean = torch.zeros(1, dtype=torch.float64)
    sums = Reconstruction()
    sums.add(Target(torch.tensor([[1.0]]), mean), torch.tensor([[0.0]]))
    sums.add(Target(torch.tensor([[3.0]]), mean), torch.tensor([[3.0]]))
    assert sums.fvu == pytest.approx(0.1)  # a mean over batches would give 0.5


def test_rows_without_variance_are_refused() -> None:
    sums = Reconstruction()
    sums.add(Target(torch.ones(4, 2), torch.ones(2, dtype=torch.float64)), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="the 4 rows are all the same"):
        _ = sums.fvu


def test_truncations_by_hand() -> None:
    z = torch.tensor([[1.0, -4.0, 2.0], [0.5, 0.1, -0.2]])
    assert keep_largest(z, 1).tolist() == [[0, -4, 0], [0.5, 0, 0]]
    assert keep_largest(z, 3) is z


def test_cosine_and_norm_ratio_by_hand() -> None:
    sums, mean = Reconstruction(), torch.zeros(2, dtype=torch.float64)
    sums.add(Target(torch.tensor([[3.0, 4.0], [1.0, 0.0]]), mean), torch.tensor([[6.0, 8.0], [0.0, 2.0]]))
    sums.add(Target(torch.tensor([[1.0, 1.0]]), mean), torch.zeros(1, 2))
    assert sums.cosine == pytest.approx((1 + 0 + 0) / 3)
    assert sums.norm_ratio == pytest.approx((2 + 2 + 0) / 3)


def test_scores_are_numpys_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 7, generator=generator) + 1
    x_hat = x + 0.3 * torch.randn(300, 7, generator=generator)
    mean = x.double().mean(0)
    sums = Reconstruction()
    for a, b in zip(x.split(64), x_hat.split(64), strict=True):
        sums.add(Target(a, mean), b)
    X, Y = x.double().numpy(), x_hat.double().numpy()
    norms = np.linalg.norm(X, axis=1), np.linalg.norm(Y, axis=1)
    assert sums.fvu == pytest.approx(((X - Y) ** 2).sum() / ((X - X.mean(0)) ** 2).sum(), rel=1e-12)
    assert sums.normalized_mse == pytest.approx(((X - Y) ** 2).sum() / (X**2).sum(), rel=1e-12)
    assert sums.cosine == pytest.approx(((X * Y).sum(1) / norms[0] / norms[1]).mean(), rel=1e-12)
    assert sums.norm_ratio == pytest.approx((norms[1] / norms[0]).mean(), rel=1e-12)
