"""Parity by folding: how many ReLUs it takes, and what training ends at."""

import numpy as np
import pytest
import torch

from pipeline.toy.functions.parity import (
    CENTRES,
    Chain,
    Way,
    by_hand,
    centres_of,
    exact_range,
    folding,
    folding_chain,
    random_chain,
    train,
)


def test_parity_of_thirty_one_parameters() -> None:
    net = folding(CENTRES, last=torch.relu)
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


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
def test_n_relus_with_skips_tell_the_parity_of_two_to_the_n(n: int) -> None:
    chain = folding_chain(n)
    assert len(chain.rows) == n + 1  # n ReLUs and the output
    x = torch.arange(-1, 2**n, dtype=torch.double)
    assert torch.equal(chain(x), x % 2)
    # No fewer do: each ReLU at most doubles the pieces, and the output crosses ½ between all neighbours.
    crossings = int((((chain(x) > 0.5).int().diff()) != 0).sum())
    assert 2 ** (n - 1) < crossings <= chain.n_pieces() <= 2**n


def test_pieces_are_those_of_the_function() -> None:
    """Against the slopes of a fine grid: no piece is missed, none is counted twice."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 4):
        for _ in range(10):
            chain = random_chain(n, rng)
            x = torch.linspace(-40, 40, 40_001, dtype=torch.double)
            slope = chain(x).diff() / x.diff()
            same = (slope.diff().abs() < 1e-6).int()
            runs = int((same.diff() == 1).sum()) + int(same[0])  # stretches of one slope
            assert runs <= chain.n_pieces() <= 2**n
    tent = Chain(((1.0, 0.0), (-1.0, 2.0, 0.0)))  # |x|
    assert tent.n_pieces() == 2
    assert Chain(((2.0, 1.0),)).n_pieces() == 1


def test_the_relu_after_the_output_is_what_leaves_runs_silent() -> None:
    linear, source = train(Way(), 60, 150), train(Way(last=torch.relu), 60, 150)
    assert sum(abs(e - 0.5) < 0.01 for e in linear["error"]) == 0
    assert sum(abs(e - 0.5) < 0.01 for e in source["error"]) > 10
    assert sum(linear["right"]) == sum(source["right"]) == 0


def test_training_stays_at_the_wired_weights_and_leaves_none_for_noise() -> None:
    wired, noisy = train(Way(from_wired=0.0), 2, 20), train(Way(from_wired=1.0), 20, 20)
    assert wired["right"] == wired["right_before"] == [1, 1]
    assert sum(noisy["right"]) < 20
    assert sum(noisy["right_before"]) < 20


def test_by_hand_counts_integers_beyond_the_range() -> None:
    found = by_hand(3, 5)
    assert found["inside"] == [16, 16]
    assert found["beyond"] == [3, 200]  # -1, 16 and 17 are right too
    assert found["exact"] == (-1, 17)
    assert [row["relus"] for row in found["table"]] == [7, 9]
