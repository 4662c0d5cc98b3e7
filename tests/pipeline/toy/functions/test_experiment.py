"""Small networks for simple functions: exact where they are said to be."""

import pytest
import torch

from pipeline.toy.functions.experiment import (
    PARITY_CENTRES,
    QUICK,
    Settings,
    centres_of,
    exact_range,
    folding,
    less_than,
    minimum,
    minimum_of_four,
    minimum_of_two,
    parity,
    threshold,
)


def test_one_neuron_says_whether_x_is_below_ten() -> None:
    x = torch.arange(-20, 40, dtype=torch.double)
    assert torch.equal(less_than(x, 9.5, 100) > 0.5, x < 10)
    assert float((less_than(x, 9.5, 100) - (x < 10).double()).abs().max()) < 1e-20
    assert float(less_than(torch.tensor(10.0), 10, 1000)) == 0.5


def test_trained_it_ends_in_the_middle_of_the_gap() -> None:
    found = threshold(Settings(**QUICK))
    for first, value in found["threshold"].items():
        assert 9 < value < 10, first
        assert value == pytest.approx(9.5, abs=0.05), first


def test_both_forms_of_the_minimum_are_exact() -> None:
    x = torch.cartesian_prod(*2 * [torch.linspace(-10, 10, 81, dtype=torch.double)])
    for form in (minimum_of_four, minimum_of_two):
        assert torch.allclose(form(x[:, 0], x[:, 1]), x.amin(1), atol=1e-14)


def test_training_finds_the_second_form() -> None:
    found = minimum(Settings(**QUICK))
    assert found["mse"][0] < 1e-4
    assert found["cosine_with_difference"] > 0.999
    errors = {name: trained for name, _, _, trained in found["errors"]}
    assert errors["the square it learned on, [0, 1]²"] < 0.05
    assert errors["[-10, 10]²"] > 0.5  # somewhere what it carries is cut off


def test_parity_of_thirty_one_parameters() -> None:
    net = folding(PARITY_CENTRES)
    assert net.n_parameters == 31
    assert [W.shape[-1] for W in net.weights] == [2, 2, 2, 2, 2, 1]
    x = torch.arange(-1, 18, dtype=torch.double)
    with torch.no_grad():
        assert torch.equal(net(x[:, None])[0, :, 0], x % 2)
        for wrong in (-2.0, 18.0):
            assert float(net(torch.tensor([[wrong]], dtype=torch.double))) != wrong % 2
    assert exact_range(net, 8) == (-1, 17)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_two_relus_a_fold_tell_the_parity_of_two_to_the_n(n: int) -> None:
    first, last = exact_range(folding(centres_of(n)), 2 ** (n - 1))
    assert last - first + 1 >= 2**n


def test_training_parity_stalls() -> None:
    found = parity(Settings(**QUICK))
    assert sum(error > 0.2 for error in found["trained_mse"]) >= 12
    assert all(right >= integers > 2 ** (relus // 2 - 2) for _, integers, _, relus, right, _ in found["table"])
