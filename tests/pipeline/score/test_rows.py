"""The pass over rows: in parts, which are merged to the same bits however the pass came about."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.score import rows
from pipeline.score.config import ScoreConfig
from pipeline.score.measures import Rows, measures_of
from pipeline.score.reconstruction import Target
from pipeline.score.rows import N_PARTS, PARTS, parts_of
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from tests.conftest import make_store
from tests.pipeline.score.made import dictionary, measured

HOOK = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    made = make_store(tmp_path_factory.mktemp("store") / "s.zarr", d={HOOK: 8}, chunk_sequences=3)
    assert isinstance(made, ActivationStore)
    return made


@pytest.fixture
def made() -> dict[str, FeatureDictionary]:
    return {name: dictionary({HOOK: 8}, {HOOK: 8}, seed=seed) for seed, name in enumerate(("a", "b"))}


def parts(folder: Path, name: str) -> list[Path]:
    return sorted((folder / name / PARTS).glob("part-*.npz"))


def same(found: tuple, other: tuple) -> None:
    assert json.dumps(found[0]) == json.dumps(other[0])
    for name, histogram in found[1].items():
        for key, array in histogram.arrays().items():
            np.testing.assert_array_equal(other[1][name].arrays()[key], array)


def test_parts_are_all_pieces_in_their_order() -> None:
    for n in (1, 15, 16, 17, 61):
        pieces = [(i, i + 1) for i in range(n)]
        groups = parts_of(pieces)
        assert len(groups) <= N_PARTS
        assert [piece for group in groups for piece in group] == pieces


def test_a_pass_that_was_interrupted_goes_on_to_the_same_bits(
    store: ActivationStore, made: dict[str, FeatureDictionary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured(store, made, tmp_path / "whole")
    n = len(parts(tmp_path / "whole", "a"))
    assert n > 3
    with monkeypatch.context() as patch:
        saved, really = [], rows.Parts.save

        def save(own: rows.Parts, i: int, measures: rows.Measures) -> None:
            saved.append(i)
            if len(saved) == 4:  # a's second part is there, b's is not
                raise KeyboardInterrupt
            really(own, i, measures)

        patch.setattr(rows.Parts, "save", save)
        with pytest.raises(KeyboardInterrupt):
            measured(store, made, tmp_path / "cut")
    assert [len(parts(tmp_path / "cut", name)) for name in made] == [2, 1]
    same(whole, measured(store, made, tmp_path / "cut"))


def test_parts_that_are_there_are_not_measured_again(
    store: ActivationStore, made: dict[str, FeatureDictionary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measured(store, made, tmp_path)
    monkeypatch.setattr(rows, "batches", lambda *_: pytest.fail("rows were read"))
    same(whole, measured(store, made, tmp_path))


def test_a_damaged_part_is_measured_again(
    store: ActivationStore, made: dict[str, FeatureDictionary], tmp_path: Path
) -> None:
    whole = measured(store, made, tmp_path)
    first, second, *_ = parts(tmp_path, "a")
    damaged = bytearray(first.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    first.write_bytes(damaged)
    second.write_bytes(second.read_bytes()[:50])
    same(whole, measured(store, made, tmp_path))


def test_parts_that_change_places_are_measured_again(
    store: ActivationStore, made: dict[str, FeatureDictionary], tmp_path: Path
) -> None:
    """Those of a dictionary, and those of two of one shape."""
    whole = measured(store, made, tmp_path)
    a, b = parts(tmp_path, "a"), parts(tmp_path, "b")
    for one, other in ((a[0], a[1]), (a[2], b[2])):
        aside = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(aside)
    same(whole, measured(store, made, tmp_path))


def test_one_that_is_added_reads_for_itself_alone(
    store: ActivationStore, made: dict[str, FeatureDictionary], tmp_path: Path
) -> None:
    alone = measured(store, {"a": made["a"]}, tmp_path)
    both = measured(store, made, tmp_path)
    assert both[0]["a"] == alone[0]["a"]
    same(both, measured(store, made, tmp_path / "anew"))


def test_merging_is_associative() -> None:
    own = dictionary({HOOK: 8}, {HOOK: 8})
    mean = torch.zeros(8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    values = [torch.randint(-8, 8, (5, 8), generator=generator).float() for _ in range(3)]  # sums without rounding

    def of(x: torch.Tensor) -> rows.Measures:
        found = measures_of(own, ScoreConfig(), ordered=False)
        given = Rows(own, x, {HOOK: Target(x, mean)}, own.encode(x).round())
        for one in found.values():
            one.add(given)
        return found

    left, right = [of(x) for x in values], [of(x) for x in values]
    for name in left[0]:
        left[0][name].merge(left[1][name])
        left[0][name].merge(left[2][name])
        right[1][name].merge(right[2][name])
        right[0][name].merge(right[1][name])
        for key, array in left[0][name].state().items():
            np.testing.assert_allclose(right[0][name].state()[key], array, rtol=1e-12)
