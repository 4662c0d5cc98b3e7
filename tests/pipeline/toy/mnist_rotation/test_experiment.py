"""Rotations of one digits net: the numbers of the parts that look at it, on few inputs."""

from typing import Any

import pytest
import torch

from pipeline.toy.mnist_rotation import detailed
from pipeline.toy.mnist_rotation import experiment as toy
from pipeline.train.rotations.measures import measure

SETTINGS = toy.Settings(**toy.QUICK)


def test_the_function_is_unchanged(numbers: dict[str, Any]) -> None:
    found = numbers["rotation"]
    assert found["accuracy"]["test"] > 0.9
    assert 0 < found["unchanged"] < 1e-4 < found["largest_logit"]


def test_the_middle_layer_is_sparser_on_inputs_that_no_fit_has_seen(numbers: dict[str, Any]) -> None:
    for where in ("train", "heldout"):
        middle = numbers["rotation"]["layers"][1][where]
        assert middle["after"]["log"] < 0.9 * middle["before"]["log"]
        assert middle["after"]["mass_in_1%"] > 1.5 * middle["before"]["mass_in_1%"]
        assert all(middle["after"]["log"] < 0.8 * r["log"] for r in middle["random"])


def test_more_inputs_generalise_better(numbers: dict[str, Any]) -> None:
    one, many = numbers["by_n_fit"]["rows"]
    assert (one["n"], many["n"]) == (1, 64)
    assert one["train"]["log"] < many["train"]["log"]
    assert many["heldout"]["log"] < one["heldout"]["log"]
    assert many["heldout"]["log"] - many["train"]["log"] < 0.5 * (one["heldout"]["log"] - one["train"]["log"])


def test_parts_that_are_measured_apart_have_the_same_rotation(numbers: dict[str, Any]) -> None:
    """Each part trains its own net: the fit to the most inputs is the rotation that is looked at, to the bit."""
    middle = numbers["rotation"]["layers"][1]
    last = numbers["by_n_fit"]["rows"][-1]
    assert (last["train"], last["heldout"]) == (middle["train"]["after"], middle["heldout"]["after"])


def test_every_start_and_any_invertible_map_is_sparser_than_neurons(numbers: dict[str, Any]) -> None:
    before = numbers["rotation"]["layers"][1]["heldout"]["before"]["log"]
    assert set(numbers["starts"]) == {*detailed.STARTS, "beside"}
    assert all(found["log"] < before for found in numbers["starts"].values())
    inverse = numbers["rotation"]["invertible"]
    assert inverse["heldout"]["log"] < before
    assert 1 < inverse["condition"] < 1e3


def test_agreements_are_of_bases(numbers: dict[str, Any]) -> None:
    assert 0 < numbers["rotation"]["last"]["identity"] <= 1 + 1e-9
    for found in numbers["agreements"]["hidden"].values():
        assert 0 < min(found["random"]) <= max(found["random"]) < 1
        assert min(found["random"]) < found["output_input"] <= 1


def test_a_layer_rotated_for_itself_is_sparser_than_in_its_turn(numbers: dict[str, Any]) -> None:
    """But for the first: its input are pixels in both."""
    chained = [layer["heldout"]["after"] for layer in numbers["rotation"]["layers"]]
    own = numbers["agreements"]["own"]
    assert own[0] == chained[0]
    assert all(alone["log"] < 0.8 * turn["log"] for alone, turn in zip(own[1:], chained[1:], strict=True))


def test_the_picture_is_of_held_out_inputs(numbers: dict[str, Any]) -> None:
    setting = detailed.Setting(SETTINGS)
    magnitude = numbers["rotation"]["magnitude"]
    eye = torch.eye(SETTINGS.width, dtype=torch.float64)
    # the mean over entries of the mean over inputs is l1
    l1 = measure(setting.held[1], eye, eye)["l1"]
    assert float(torch.tensor(magnitude["before"]).mean()) == pytest.approx(l1, abs=1e-4)
    after = numbers["rotation"]["layers"][1]["heldout"]["after"]["l1"]
    assert float(torch.tensor(magnitude["after"]).mean()) == pytest.approx(after, abs=1e-4)
