"""x < 10 as one neuron: its loss, its bound, and its growth."""

import math

import numpy as np
import pytest
import torch

from pipeline.toy.functions.threshold import RATE, descend, flow, gradient, least_loss, less_than, loss, measure

X = np.arange(-20.0, 40)


def test_one_neuron_says_whether_x_is_below_ten() -> None:
    x = torch.arange(-20, 40, dtype=torch.double)
    assert torch.equal(less_than(x, 9.5, 100) > 0.5, x < 10)
    assert float((less_than(x, 9.5, 100) - (x < 10).double()).abs().max()) < 1e-20
    assert float(less_than(torch.tensor(10.0), 10, 1000)) == 0.5


def test_loss_and_gradient_are_torchs() -> None:
    w, b = (torch.tensor(v, dtype=torch.double, requires_grad=True) for v in (-0.7, 6.5))
    x = torch.from_numpy(X)
    theirs = torch.nn.functional.binary_cross_entropy_with_logits(w * x + b, (x < 10).double())
    theirs.backward()
    assert loss(-0.7, 6.5, X) == pytest.approx(theirs.item(), rel=1e-12)
    assert w.grad is not None
    assert b.grad is not None
    assert gradient(-0.7, 6.5, X) == pytest.approx((w.grad.item(), b.grad.item()), rel=1e-12)


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 10.0, 100.0])
def test_no_threshold_has_less_than_the_least_loss(sharpness: float) -> None:
    found = [loss(-sharpness, sharpness * at, X) for at in np.linspace(9, 10, 201)]
    assert min(found) >= least_loss(sharpness, len(X)) > 0
    if sharpness >= 10:  # then the others hardly matter
        assert min(found) == pytest.approx(least_loss(sharpness, len(X)), rel=0.01)


def test_descent_follows_the_flow() -> None:
    """Two integrations of the same equation."""
    step, w, b = descend(20_000, X)[-1]
    ((_, w_flow, b_flow),) = flow(np.array([float(step)]), X)
    assert (w, b) == pytest.approx((w_flow, b_flow), rel=1e-3)


def test_far_out_the_weights_go_along_the_largest_margin() -> None:
    """w = -2, b = 19 is the smallest pair with margins of 1 at 9 and 10; the weights go to that times log t, and the loss
    falls as 1 / t (Soudry et al. 2018, theorem 3)."""
    (_, w, b), (_, w_far, b_far) = flow(np.array([1e12, 1e14]) / RATE, X)
    e_folds = math.log(100)
    assert (w_far - w) / e_folds == pytest.approx(-2, rel=1e-3)
    assert (b_far - b) / e_folds == pytest.approx(19, rel=1e-3)
    assert loss(w_far, b_far, X) / loss(w, b, X) == pytest.approx(0.01, rel=0.01)


def test_the_numbers_of_the_article() -> None:
    found = measure(1000, 200)
    assert found["at_9.5"]["1"] == pytest.approx(1 / (1 + math.exp(-0.5)), rel=1e-6)
    assert found["at_9.5"]["100"] == pytest.approx(1.0, abs=1e-20)
    for rows in found["trained"].values():
        assert all(row[3] >= row[4] > 0 for row in rows)
