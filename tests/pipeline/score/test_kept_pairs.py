"""A pair of dictionaries is measured once: a file keeps what was found, and one that is damaged is as none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Size, Tensor

from pipeline.score import kept_pairs
from pipeline.score.kept_pairs import KeptPairs
from pipeline.score.pairs import Entry, all_pairs, measure
from pipeline.score.similarity import Way, random_directions
from pipeline.score.subjects import Subject
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store
from tests.pipeline.score.made import scored


def made(n: int) -> list[Entry]:
    return [
        Entry.of(f"s{i}", "topk", {"seed": i}, 20, False, random_directions(20, 8, i), key=f"k{i}") for i in range(n)
    ]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The pairs that were measured, in order."""
    names: list[tuple[str, str]] = []

    def counted(a: Entry, b: Entry, load: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Way, Way]:
        names.append((a.name, b.name))
        return measure(a, b, load)

    monkeypatch.setattr(kept_pairs, "measure", counted)
    return names


def rows(entries: list[Entry], folder: Path) -> list[tuple[str, list[float]]]:
    return [(str(scores), histogram.tolist()) for scores, histogram in all_pairs(entries, KeptPairs(folder))]


def test_only_the_pairs_of_a_dictionary_that_was_added_are_measured(
    measured: list[tuple[str, str]], tmp_path: Path
) -> None:
    entries = made(5)
    rows(entries[:4], tmp_path)
    assert len(measured) == 6
    more = rows([entries[4], *entries[:4]], tmp_path)  # in any order
    assert len(measured) == 10
    assert all("s4" in pair for pair in measured[6:])
    assert more == rows([entries[4], *entries[:4]], tmp_path / "anew")
    measured.clear()
    other = replace(entries[0], key="retrained")
    rows([other, *entries[1:]], tmp_path)
    assert len(measured) == 4


def test_what_is_kept_is_read_both_ways_round(measured: list[tuple[str, str]], tmp_path: Path) -> None:
    a, b = made(2)
    b = replace(b, load=lambda: random_directions(30, 8, 9), n_alive=30)
    kept = KeptPairs(tmp_path)
    there, back = kept(a, b, lambda: (a.load(), b.load()))
    assert there != back
    assert kept(b, a, lambda: (b.load(), a.load())) == (back, there)
    assert len(measured) == 1


@pytest.mark.parametrize("damage", [b"", b"[", b"{}", b"null", "half", "digit", "another pair's"])
def test_a_damaged_file_is_made_anew(measured: list[tuple[str, str]], tmp_path: Path, damage: bytes | str) -> None:
    entries = made(3)
    whole = rows(entries, tmp_path)
    files = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    first, second = list(files)[:2]
    data = files[first]
    damaged = {
        "half": data[: len(data) // 2],
        "digit": data.replace(b'"mmcs": 0.', b'"mmcs": 0.1'),
        "another pair's": files[second],
    }
    first.write_bytes(damage if isinstance(damage, bytes) else damaged[damage])
    measured.clear()
    assert rows(entries, tmp_path) == whole
    assert len(measured) == 1
    assert first.read_bytes() == data


def test_entries_without_a_key_are_not_kept(measured: list[tuple[str, str]], tmp_path: Path) -> None:
    list(all_pairs([replace(e, key="") for e in made(3)], KeptPairs(tmp_path / "pairs")))
    assert measured
    assert not (tmp_path / "pairs").exists()


def test_the_stage_measures_no_pair_twice(measured: list[tuple[str, str]], tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", d={"h": 8})
    subjects = []
    for seed in range(3):
        path, spec = tmp_path / "train" / f"s{seed}", Spec("standard", 8, 12, Site(("h",), ("h",)))
        shapes = spec.shapes
        weights = {name: random_directions(1, Size(shape).numel(), seed).view(shape) for name, shape in shapes.items()}
        FeatureDictionary(spec, **weights).save(path)
        subjects.append(Subject(spec.site, f"s{seed}", "topk", {"seed": seed}, path))
    two = scored(tmp_path, store, subjects[:2])["pairs"]
    assert len(two) == 2 * len(measured) == 2
    three = scored(tmp_path, store, subjects)["pairs"]
    assert len(three) == 2 * len(measured) == 6
    assert [pair for pair in three if "s2" not in (pair["a"], pair["b"])] == two
