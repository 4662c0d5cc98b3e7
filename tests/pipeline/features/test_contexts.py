"""The strongest tokens of each feature and a fair sample of the rest, beside what brute force finds."""

import numpy as np
import pytest

from pipeline.features.contexts import AROUND, Contexts, uniform, windows_of

CONTEXT, POSITIONS = 24, tuple(range(1, 24))
N_SEQUENCES, D_SAE = 40, 7


def codes(seed: int = 0, density: float = 0.2) -> np.ndarray:
    """Of 40 sequences; the feature 3 is dead."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=(N_SEQUENCES * len(POSITIONS), D_SAE)).astype(np.float32)
    z *= generator.random(z.shape) < density
    z[:, 3] = 0
    return z


def filled(z: np.ndarray, step: int = 3, **sizes: int) -> Contexts:
    found = Contexts(D_SAE, POSITIONS, CONTEXT, **sizes)
    for first in range(0, N_SEQUENCES, step):
        start = first * len(POSITIONS)
        found.add(z[start : start + step * len(POSITIONS)], start)
    return found


def test_the_strongest_are_the_strongest_of_their_sequences() -> None:
    z = codes()
    entries = filled(z, n_top=5).top.result()
    per_sequence = np.abs(z).reshape(N_SEQUENCES, len(POSITIONS), D_SAE)
    for feature in range(D_SAE):
        own = entries[entries.feature == feature]
        best = np.sort(per_sequence[:, :, feature].max(1))[::-1][:5]
        np.testing.assert_array_equal(np.abs(own.value), best[best > 0])
        np.testing.assert_array_equal(own.value, z[own.row, feature])
        assert len(set(own.row // len(POSITIONS))) == len(own)


def test_the_sample_is_that_of_the_smallest_hashes() -> None:
    z = codes()
    entries = filled(z, n_sampled=6).sample.result()
    rows = np.arange(len(z))
    for feature in range(D_SAE):
        active = rows[z[:, feature] != 0]
        chosen = active[np.argsort(uniform(active, np.full(len(active), feature)))[:6]]
        assert set(entries.row[entries.feature == feature]) == set(chosen)


def test_the_sample_does_not_look_at_strengths() -> None:
    """20,000 active rows: the mean strength of those drawn is that of all within four standard errors."""
    row = np.arange(20_000)
    strength = np.random.default_rng(0).random(20_000)
    drawn = strength[np.argsort(uniform(row, np.zeros_like(row)))[:2_000]]
    assert abs(drawn.mean() - strength.mean()) < 4 * strength.std() / 2_000**0.5
    keys = uniform(row, np.full(20_000, 5))
    assert np.histogram(keys, 10, (0, 1))[0].min() > 1_800
    assert abs(np.corrcoef(keys, uniform(row, np.full(20_000, 6)))[0, 1]) < 0.03


@pytest.mark.parametrize("step", [1, 7, 40])
def test_batches_do_not_matter_nor_does_merging(step: int) -> None:
    z = codes()
    whole, groups = filled(z).grouped()
    other, other_groups = filled(z, step).grouped()
    halves = [Contexts(D_SAE, POSITIONS, CONTEXT) for _ in range(2)]
    for half, (a, b) in zip(halves, ((0, 13), (13, 40)), strict=True):
        half.add(z[a * len(POSITIONS) : b * len(POSITIONS)], a * len(POSITIONS))
    halves[1].merge(halves[0])  # in any order
    merged, merged_groups = halves[1].grouped()
    for found, own in ((other, other_groups), (merged, merged_groups)):
        np.testing.assert_array_equal(found.row, whole.row)
        np.testing.assert_array_equal(found.window, whole.window)
        np.testing.assert_array_equal(own, groups)


def test_what_is_kept_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.features.contexts._MANY", 50)
    z = codes(density=1.0)
    found = Contexts(D_SAE, POSITIONS, CONTEXT, n_top=4, n_sampled=4)
    for repeat in range(20):
        found.add(z, repeat * len(z))
        for best in (found.top, found.sample):
            assert len(best._kept) <= 4 * D_SAE
            assert best._n_waiting <= 4 * D_SAE
    assert len(found.top.result()) == len(found.sample.result()) == 4 * (D_SAE - 1)


def test_windows_are_the_codes_and_tokens_around() -> None:
    z = codes()
    entries, _ = filled(z).grouped()
    tokens = np.arange(N_SEQUENCES * CONTEXT, dtype=np.int32).reshape(N_SEQUENCES, CONTEXT)
    sequence, place = np.divmod(entries.row, len(POSITIONS))
    found, inside = windows_of(tokens, sequence, place + POSITIONS[0])
    for i in range(0, len(entries), 17):
        for j in range(2 * AROUND + 1):
            position = place[i] + POSITIONS[0] - AROUND + j
            assert inside[i, j] == (0 <= position < CONTEXT)
            if inside[i, j]:
                assert found[i, j] == tokens[sequence[i], position]
            if position in POSITIONS:
                row = sequence[i] * len(POSITIONS) + position - POSITIONS[0]
                assert entries.window[i, j] == z[row, entries.feature[i]]
            else:
                assert np.isnan(entries.window[i, j])


def test_groups_are_by_strength_and_of_one_size() -> None:
    z = codes()
    entries, groups = filled(z, n_sampled=20).grouped(n_groups=4)
    for feature in range(D_SAE):
        own = entries[entries.feature == feature], groups[entries.feature == feature]
        sampled = own[1] > 0
        sizes = np.bincount(own[1][sampled], minlength=5)[1:]
        assert sizes.max() - sizes.min() <= 1
        strengths = np.abs(own[0].value[sampled])
        assert (np.diff(strengths) <= 0).all()
        assert (np.diff(own[1]) >= 0).all()
