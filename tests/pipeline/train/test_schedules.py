import itertools

import pytest

from pipeline.train.schedules import crossed, k_at, lr_factor


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_rate_rises_stays_and_falls(shape: str) -> None:
    factors = [lr_factor(step, 100, 0.1, 0.4, shape) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[10:60] == pytest.approx([1.0] * 50)
    assert all(after < before for before, after in itertools.pairwise(factors[61:]))
    assert factors[80] == pytest.approx(0.5)
    assert 0 < factors[99] < 0.03


def test_without_decay_the_rate_stays() -> None:
    assert {lr_factor(step, 50, 0, 0, shape) for step in range(50) for shape in ("linear", "cosine")} == {1.0}


def test_k_falls_in_a_line_and_stays() -> None:
    ks = [k_at(step, 100, 64, 32, 0.5) for step in range(100)]
    assert ks[0] == 64
    assert ks[25] == 48
    assert set(ks[50:]) == {32}
    assert k_at(3, 100, 32, 32, 0.2) == 32


def test_every_so_many_tokens_whatever_the_size_of_batches() -> None:
    for size in (7, 10, 64):
        n = 1000 // size
        assert sum(crossed(step, size, 100) for step in range(n)) == n * size // 100
