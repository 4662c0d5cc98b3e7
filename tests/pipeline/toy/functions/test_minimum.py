"""The forms of min(a, b): networks wired by hand are read for what they are."""

import pytest
import torch

from pipeline.toy.functions.minimum import FORMS, Trained, all_pairs, form, largest_error, learned, read, summary, wired
from pipeline.toy.networks import Networks


def joined(networks: list[Networks]) -> Networks:
    """One model of several networks of the same widths."""
    weights = [torch.cat(w) for w in zip(*(n.weights for n in networks), strict=True)]
    biases = [torch.cat(b) for b in zip(*(n.biases for n in networks), strict=True)]
    return Networks(weights, biases, skip=networks[0].skip)


@pytest.mark.parametrize("lam", [1.0, 0.75, 0.5, 0.3, 0.0, -0.4, 1.7])
def test_every_wired_form_is_the_minimum_and_is_read_back(lam: float) -> None:
    net = wired(lam)
    a, b = all_pairs().double().T
    short, mirror = a - torch.relu(a - b), b - torch.relu(b - a)
    with torch.no_grad():
        out = net(torch.stack([a, b], 1))[0, :, 0]
    assert torch.allclose(out, lam * short + (1 - lam) * mirror, atol=1e-12)  # the formula itself
    assert float(largest_error(net)) < 1e-12
    found = read(net)
    assert float(found.lam) == pytest.approx(lam, abs=1e-12)
    assert float(found.bend) == pytest.approx(1.0, abs=1e-12)


def test_the_form_does_not_depend_on_how_the_weights_share_it() -> None:
    """Scaled units, both units on one side, and a unit that is on everywhere and is taken off the skip again."""
    scaled = wired(0.3)
    with torch.no_grad():
        scaled.weights[0].mul_(0.71)
        scaled.weights[1][:, 2:].div_(0.71)
    assert float(read(scaled).lam) == pytest.approx(0.3, abs=1e-9)

    def net(W: list, b: list, v: list, c: float) -> Networks:
        tensors = [torch.tensor(t, dtype=torch.double) for t in ([W], [[b]], [[[x] for x in v]], [[[c]]])]
        return Networks([tensors[0], tensors[2]], [tensors[1], tensors[3]], skip=True)

    both = net([[1.0, 2.0], [-1.0, -2.0]], [0.0, 0.0], [1.0, 0.0, -0.4, -0.3], 0.0)
    assert float(largest_error(both)) < 1e-12
    assert float(read(both).lam) == pytest.approx(1.0, abs=1e-12)
    assert read(both).bends.all()
    # unit 2 is a + 60, on for all pairs: what it adds the skip and the bias take off
    carried = net([[1.0, 1.0], [-1.0, 0.0]], [0.0, 60.0], [0.0, 0.0, -1.0, 1.0], -60.0)
    assert float(largest_error(carried)) < 1e-12
    found = read(carried)
    assert float(found.lam) == pytest.approx(1.0, abs=1e-12)
    assert found.bends.tolist() == [[True, False]]
    off = net([[1.0, 1.0], [-1.0, 0.0]], [0.0, -60.0], [1.0, 0.0, -1.0, 1.0], 0.0)
    assert read(off).silent.tolist() == [[False, True]]


def test_forms_and_the_net_that_is_printed() -> None:
    assert [form(x) for x in (1.04, -0.03, 0.47, 0.8, 1.2)] == list(FORMS)
    lams = (1.0, 0.0, 0.5, 0.7, 1.3)
    nets = joined([wired(x) for x in lams])
    with torch.no_grad():
        nets.weights[0][0, :, 1] = 0  # the source's print: one unit's weights are all 0
    found = summary(Trained(nets, largest_error(nets), torch.ones(5, dtype=torch.bool)))
    assert found["solved"] == 5
    assert found["forms"] == dict.fromkeys(FORMS, 1)
    assert found["lambda"] == pytest.approx(lams)
    assert (found["one_used"], found["printed"]) == (2, 1)  # the mirror's other unit has weights, but no effect
    with torch.no_grad():
        nets.weights[1][:, 0] += 0.02  # off by one at a = 50
    assert summary(Trained(nets, largest_error(nets), torch.ones(5, dtype=torch.bool)))["solved"] == 0


def test_training_is_deterministic_and_gets_nearer() -> None:
    first, again, longer = learned(6, 2), learned(6, 2), learned(6, 12)
    assert torch.equal(first.error, again.error)
    assert float(longer.error.median()) < float(first.error.median()) / 2


@pytest.mark.slow
def test_three_hundred_epochs_solve_it_and_most_are_the_short_form() -> None:
    """A scratch implementation: 193 of 200 solve it, 61% of them in the short form or its mirror, 6% symmetric."""
    found = summary(learned(100, 300))
    assert found["solved"] >= 90
    forms = found["forms"]
    assert 0.5 < (forms["short"] + forms["mirror"]) / found["solved"] < 0.72
    assert forms["symmetric"] / found["solved"] < 0.15
