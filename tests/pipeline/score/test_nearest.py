"""The nearest directions are those of the whole matrix in float64, whatever blocks and rough products it is searched by."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.score import nearest as module
from pipeline.score.nearest import TILE, nearest, nearest_both_ways
from pipeline.score.similarity import random_directions
from pipeline.train.rotations.msp import random_rotation

FLOAT32 = 1e-6  # sums of up to 96 products of float32, of rows whose lengths were rounded, too


def reference(a: Tensor, b: Tensor, signed: bool) -> np.ndarray:
    """The matrix of cosines in NumPy's float64."""
    x, y = (v.double().numpy() for v in (a, b))
    cosine = (x / np.linalg.norm(x, axis=1)[:, None]) @ (y / np.linalg.norm(y, axis=1)[:, None]).T
    return np.abs(cosine) if signed else cosine


def crowded(n: int, d: int, seed: int, spread: float) -> Tensor:
    """Rows of many lengths around eight axes, so near to each other that bfloat16 often does not tell which is nearest."""
    generator = torch.Generator().manual_seed(seed)
    axes = random_directions(8, d, 1)[torch.randint(8, (n,), generator=generator)]
    noise = torch.randn(n, d, generator=generator)
    return (axes + spread * noise) * torch.rand(n, 1, generator=generator).exp() ** 9


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("spread", [0.001, 0.05, 1.0])
@pytest.mark.parametrize(("n_a", "n_b"), [(1, 1), (TILE + 1, 3), (3, 2 * TILE), (2500, 1100), (1024, 2049)])
def test_both_ways_are_those_of_the_whole_matrix(n_a: int, n_b: int, spread: float, signed: bool) -> None:
    """Sizes on, before and beyond the borders of blocks and tiles. Which of two that differ by float32's rounding is found
    is open, its cosine is not."""
    a, b = crowded(n_a, 48, 2, spread), -crowded(n_b, 48, 3, spread)
    expected = reference(a, b, signed)
    for found, matrix in zip(nearest_both_ways(a, b, signed=signed), (expected, expected.T), strict=True):
        cosines, indices = (v[:, 0].numpy() for v in found)
        np.testing.assert_allclose(cosines, matrix.max(1), rtol=0, atol=FLOAT32)
        np.testing.assert_allclose(matrix[np.arange(len(matrix)), indices], matrix.max(1), rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_the_k_nearest_are_those_of_the_whole_matrix(signed: bool, others: bool) -> None:
    a = crowded(1500, 32, 4, 0.1)
    b = a if others else crowded(700, 32, 5, 0.1)
    matrix = reference(a, b, signed)
    if others:
        np.fill_diagonal(matrix, -2)
    cosines, indices = (v.numpy() for v in nearest(a, b, 7, signed=signed, others=others))
    np.testing.assert_allclose(cosines, -np.sort(-matrix, axis=1)[:, :7], rtol=0, atol=FLOAT32)
    np.testing.assert_allclose(np.take_along_axis(matrix, indices, 1), cosines, rtol=0, atol=FLOAT32)
    assert all(len(set(row)) == 7 for row in indices.tolist())


def test_rough_products_alone_would_miss_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without the second look the tile of the largest rough cosine is believed."""
    a, b = crowded(1500, 96, 6, 0.02), crowded(3000, 96, 7, 0.02)
    best = torch.from_numpy(reference(a, b, False).max(1))
    monkeypatch.setattr(module, "native_bfloat16", lambda device: True)
    below = best - nearest(a, b, 1, signed=False).cosines[:, 0]
    assert below.abs().max() < FLOAT32
    monkeypatch.setattr(module, "_ROUNDING", -1 + 1e-9)  # no other tile is wanted then
    rough = best - nearest(a, b, 1, signed=False).cosines[:, 0]
    assert (rough > FLOAT32).double().mean() > 0.1
    assert rough.max() < 2 * 2**-7  # no rounding is larger


def test_withoutnative_bfloat16_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = crowded(300, 24, 8, 0.3), crowded(400, 24, 9, 0.3)
    expected = [f.cosines for f in nearest_both_ways(a, b, signed=True)]
    monkeypatch.setattr(module, "native_bfloat16", lambda device: False)
    for found, cosines in zip(nearest_both_ways(a, b, signed=True), expected, strict=True):
        torch.testing.assert_close(found.cosines, cosines, rtol=0, atol=FLOAT32)


def test_a_rotation_of_both_a_change_of_order_and_of_lengths_change_nothing() -> None:
    a, turn = random_directions(300, 64, 1), random_rotation(64, 0).float()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    there, back = nearest_both_ways(a, 5 * (a @ turn)[order] @ turn.T, signed=False)
    torch.testing.assert_close(there.cosines, torch.ones(300, 1))
    assert (order[there.indices[:, 0]] == torch.arange(300)).all()
    assert (back.indices[:, 0] == order).all()


def test_orthogonal_opposite_duplicate_and_zero_rows() -> None:
    axes = torch.eye(6)
    assert nearest(axes[:3], axes[3:], 1, signed=True).cosines.abs().max() == 0
    assert nearest(axes[:1], -axes[:1], 1, signed=False).cosines.item() == -1
    assert nearest(axes[:1], -axes[:1], 1, signed=True).cosines.item() == 1
    twice = nearest(torch.cat([axes, axes]), torch.cat([axes, axes]), 1, signed=False, others=True)
    assert (twice.cosines == 1).all()
    assert (twice.indices[:, 0] == torch.arange(12).roll(6)).all()
    zero = nearest(torch.zeros(2, 6), -axes, 2, signed=False)
    assert (zero.cosines == 0).all()
    all_negative = nearest(axes[:1], torch.tensor([[-3.0, 4, 0, 0, 0, 0], [-4.0, 3, 0, 0, 0, 0]]), 2, signed=False)
    torch.testing.assert_close(all_negative.cosines, torch.tensor([[-0.6, -0.8]]))


def test_fewer_neighbours_than_asked_for_and_none() -> None:
    a = random_directions(3, 4)
    assert nearest(a, a, 9, signed=False).indices.shape == (3, 3)
    assert nearest(a, a, 9, signed=False, others=True).indices.shape == (3, 2)
    assert nearest(a[:1], a[:1], 9, signed=False, others=True).cosines.shape == (1, 0)
    with pytest.raises(ValueError, match="k = 0 nearest directions, expected at least one"):
        nearest(a, a, 0, signed=False)


def test_rows_in_half_precision_are_taken_for_what_they_are() -> None:
    a, b = crowded(200, 16, 1, 0.3).bfloat16(), crowded(100, 16, 2, 0.3).double()
    found = nearest(a, b, 1, signed=False).cosines[:, 0].numpy()
    np.testing.assert_allclose(found, reference(a, b, False).max(1), rtol=0, atol=FLOAT32)


_PEAK = """
import sys, torch
from scripts.bench_score import peak_mib
torch.set_num_threads(1)
print(peak_mib(int(sys.argv[1]), 64))
"""


def test_the_matrix_is_never_held() -> None:
    """8,192 rows: the maxima and b in bfloat16 are 3 MiB, a block of the matrix in float32 8 MiB, all of it 256 MiB."""
    done = subprocess.run([sys.executable, "-c", _PEAK, "8192"], check=True, stdout=subprocess.PIPE, text=True)
    assert 2 < float(done.stdout) < 48
