"""min(a, b) without the skip."""

import torch

from pipeline.toy.functions.square import measure, minimum_of_four, minimum_of_two


def test_both_forms_of_the_minimum_are_exact() -> None:
    x = torch.cartesian_prod(*2 * [torch.linspace(-10, 10, 81, dtype=torch.double)])
    for form in (minimum_of_four, minimum_of_two):
        assert torch.allclose(form(x[:, 0], x[:, 1]), x.amin(1), atol=1e-14)


def test_training_finds_the_short_form_and_its_limits() -> None:
    found = measure(24, 1500)
    assert found["solved"] >= 1
    assert found["carries"] == found["solved"]
    errors = {name: trained for name, _, _, trained in found["errors"]}
    assert errors["the square it learned on, [0, 1]²"] < 0.05
    assert errors["[-10, 10]²"] > 0.5  # somewhere what it carries is cut off
