import pytest
import torch

from pipeline.train.rotations.jacobians import sampled_columns
from pipeline.train.rotations.objectives import OBJECTIVES, kurtosis, mass_in_largest

ONE = torch.zeros(1, 4, 4).index_put_(tuple(torch.tensor([[0], [1], [2]])), torch.tensor(4.0))  # rms 1, one entry
FLAT = torch.ones(1, 4, 4)


@pytest.mark.parametrize(
    ("name", "one", "flat"),
    [
        ("rational", 4 / 4.5 / 16, 1 / 1.5),
        ("log", torch.log1p(torch.tensor(64.0)).item() / 16, torch.log1p(torch.tensor(4.0)).item()),
        ("l1", 0.25, 1.0),
        ("l4", -16.0, -1.0),
        ("hoyer", -1.0, 0.0),
    ],
)
def test_closed_forms_of_the_sparsest_and_the_densest(name: str, one: float, flat: float) -> None:
    of = OBJECTIVES[name].of
    assert float(of(ONE, 0.5)) == pytest.approx(one)
    assert float(of(FLAT, 0.5)) == pytest.approx(flat)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_derivatives_are_those_of_finite_differences(name: str) -> None:
    x = torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: OBJECTIVES[name].of(x, 0.3), x)
    (derivative,) = torch.autograd.grad(OBJECTIVES[name].of(x, 0.3), x)
    before = x.detach().clone()
    torch.testing.assert_close(OBJECTIVES[name].slope(x.detach(), 0.3), derivative)
    assert torch.equal(before, x)


@pytest.mark.parametrize("name", [name for name, o in OBJECTIVES.items() if o.separable])
def test_sampled_columns_give_the_mean_over_all_without_bias(name: str) -> None:
    n, d, c, draws = 4, 10, 3, 4000
    x = torch.randn(n, 5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.arange(1, d + 1)
    of = OBJECTIVES[name].of
    seen = []
    for seed in range(draws):
        columns = sampled_columns(n, d, c, seed)
        assert all(len(set(row)) == c for row in columns.tolist())
        seen.append(float(of(x.gather(2, columns[:, None].expand(n, 5, c)), 0.3)))
    values = torch.tensor(seen)
    assert abs(float(values.mean()) - float(of(x, 0.3))) < 4 * float(values.std()) / draws**0.5


def test_varimax_is_the_variance_of_squares_over_inputs() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 2.0]])[..., None]  # squares 1, 9 and 4, 4
    assert float(OBJECTIVES["varimax"].of(x, 0.1)) == pytest.approx(-(16 + 0) / 2)


def test_mass_in_the_largest_entries() -> None:
    x = torch.ones(2, 10, 10)
    x[0, 0, 0] = 11.0
    assert mass_in_largest(x, 0.01) == pytest.approx((121 / 220 + 1 / 100) / 2)


def test_kurtosis_of_known_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.stack([torch.randn(200_000, generator=generator), torch.rand(200_000, generator=generator)], 1)
    assert kurtosis(x) == pytest.approx((3 + 1.8) / 2, abs=0.05)
    assert kurtosis(torch.cat([x, torch.zeros(200_000, 1)], 1)) == kurtosis(x)
