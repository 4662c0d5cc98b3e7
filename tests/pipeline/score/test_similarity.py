import pytest
import torch

from pipeline.score.similarity import matched_cosine, mcs, mmcs, random_directions, random_floor
from pipeline.train.rotations.msp import random_rotation


def test_mcs_by_hand() -> None:
    a = torch.tensor([[2.0, 0.0], [0.0, -3.0]])
    b = torch.tensor([[1.0, 1.0], [0.0, 5.0]])
    half = 0.5**0.5
    torch.testing.assert_close(
        mcs(a, b, signed=False), torch.tensor([half, 0.0]).where(torch.tensor([True, False]), torch.tensor(-half))
    )
    torch.testing.assert_close(mcs(a, b, signed=True), torch.tensor([half, 1.0]))
    assert mmcs(a, b, signed=True) == pytest.approx((half + 1) / 2)


def test_the_direction_matters() -> None:
    b = random_directions(50, 16)
    assert mmcs(b[:5], b, signed=False) == pytest.approx(1)
    assert mmcs(b, b[:5], signed=False) < 0.7


def test_scale_order_and_rotation_do_not_matter() -> None:
    a, b = random_directions(30, 8, seed=1), random_directions(40, 8, seed=2)
    turn = random_rotation(8, 0).float()
    changed = (b * 7)[torch.randperm(40, generator=torch.Generator().manual_seed(0))]
    assert mmcs(a @ turn, changed @ turn, signed=False) == pytest.approx(mmcs(a, b, signed=False), abs=1e-5)
    assert mmcs(a, -b, signed=True) == pytest.approx(mmcs(a, b, signed=True), abs=1e-6)


@pytest.mark.parametrize(("d", "n", "floor"), [(64, 128, 0.32), (256, 512, 0.19)])
def test_the_random_floor_is_the_known_one(d: int, n: int, floor: float) -> None:
    assert mmcs(random_directions(n, d, 1), random_directions(n, d, 2), signed=False) == pytest.approx(floor, abs=0.015)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 5), (40, 1), (3, 2), (64, 8), (500, 96)])
def test_the_floor_is_the_mean_over_random_directions(n: int, d: int, signed: bool) -> None:
    """Seen from one direction as from any other."""
    a = random_directions(4, d, 1)
    drawn = [mmcs(a, random_directions(n, d, 2 + i), signed=signed) for i in range(100)]
    error = float(torch.tensor(drawn).std()) / 10
    assert random_floor(n, d, signed=signed) == pytest.approx(sum(drawn) / 100, abs=4 * error + 1e-6)


def test_the_matching_is_one_to_one() -> None:
    a = torch.eye(3)
    b = torch.stack([a[0], a[0], a[1]])
    assert mmcs(b, a, signed=False) == 1
    assert matched_cosine(b, a, signed=False) == pytest.approx(2 / 3)
    assert matched_cosine(a[[2, 0, 1]], -a, signed=True) == pytest.approx(1)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\)"):
        mcs(torch.ones(3, 4), torch.ones(3, 5), signed=False)
    with pytest.raises(ValueError, match="0 and 3 directions"):
        mcs(torch.ones(0, 4), torch.ones(3, 4), signed=False)
