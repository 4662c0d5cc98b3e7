from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pipeline.score.pairs import Entry, all_pairs, measure, relation
from pipeline.score.similarity import Way, both_ways, matched_cosine, mcs, mmcs, random_directions, random_floor


def entry(name: str, method: str, d_sae: int, seed: int, k: int = 4) -> Entry:
    return Entry.of(
        name, method, {"d_sae": d_sae, "seed": seed, "k": k}, d_sae, False, random_directions(d_sae, 8, seed)
    )


ENTRIES = [
    entry("t16-0", "topk", 16, 0), entry("t16-1", "topk", 16, 1), entry("t32-0", "topk", 32, 0), entry("t64-0", "topk", 64, 0),
    entry("r16-0", "relu_l1", 16, 0), entry("r16-1", "relu_l1", 16, 1), entry("t16-0-k8", "topk", 16, 0, k=8),
    entry("t24-0-k8", "topk", 24, 0, k=8),
]  # fmt: skip


def test_relations() -> None:
    by_name = {e.name: e for e in ENTRIES}

    def of(a: str, b: str) -> str | None:
        return relation(by_name[a], by_name[b], ENTRIES)

    assert of("t16-0", "t16-1") == "seed"
    assert of("t16-0", "t32-0") == "larger"
    assert of("t16-0", "t64-0") is None  # not the next larger
    assert of("t16-1", "t32-0") is None  # another seed
    assert of("t16-0", "t16-0-k8") is None
    assert of("t16-0", "r16-0") == "method"
    assert of("t16-1", "r16-1") is None  # one seed stands for all
    assert of("t16-0", "t16-0") is None
    assert of("t16-0-k8", "t24-0-k8") == "larger"  # the next larger of its own kind
    assert of("t16-0", "t24-0-k8") is None


def test_every_pair_is_scored_both_ways_beside_its_floor() -> None:
    pairs = {(s["a"], s["b"]): s for s, _ in all_pairs(ENTRIES)}
    assert all((b, a) in pairs for a, b in pairs)
    assert pairs["t16-0", "t32-0"]["relation"] == "larger"
    assert pairs["t32-0", "t16-0"]["relation"] == "smaller"
    assert pairs["t16-0", "t16-1"]["mmcs"] < 0.95
    # Both are random here, so what is found is the floor.
    assert abs(pairs["t16-0", "t16-1"]["mmcs"] - pairs["t16-0", "t16-1"]["random_floor"]) < 0.1


def test_equal_dictionaries_agree_fully() -> None:
    same = [
        Entry.of("a", "topk", {"seed": 0}, 4, False, torch.eye(4)),
        Entry.of("b", "topk", {"seed": 1}, 4, False, torch.eye(4)),
    ]
    (scores, histogram), _ = list(all_pairs(same))
    assert scores["mmcs"] == scores["fraction_above_0.9"] == scores["matched_cosine"] == 1
    assert histogram[-1] == 4


def test_the_truth_is_compared_with_every_dictionary_both_ways() -> None:
    truth = entry("truth", "truth", 40, 5)
    entries = [*ENTRIES, truth]
    for other in ENTRIES:
        assert relation(truth, other, entries) == relation(other, truth, entries) == "truth"
    found = [(s["a"], s["b"]) for s, _ in all_pairs(entries) if "truth" in (s["a"], s["b"])]
    assert len(found) == 2 * len(ENTRIES)


def test_what_others_made_is_compared_with_each_other_and_with_the_first_seeds_of_ours() -> None:
    theirs = [
        Entry.of(n, "foreign standard", {"name": n}, d, False, random_directions(d, 8, d))
        for n, d in (("a", 16), ("b", 40))
    ]
    topk = Entry.of("c", "foreign topk", {"name": "c"}, 24, False, random_directions(24, 8, 9))
    entries = [*ENTRIES, *theirs, topk]
    for other in (theirs[1], topk, ENTRIES[0], ENTRIES[3], ENTRIES[4]):
        assert relation(theirs[0], other, entries) == relation(other, theirs[0], entries) == "foreign"
    assert relation(theirs[0], ENTRIES[1], entries) is None  # one seed stands for all
    assert relation(theirs[0], entry("truth", "truth", 40, 5), entries) == "truth"


def test_one_product_serves_both_ways_and_the_directions_are_loaded_for_it_alone() -> None:
    ways: list[tuple[str, str]] = []

    def counted(a: Entry, b: Entry, load: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Way, Way]:
        ways.append((a.name, b.name))
        return measure(a, b, load)

    pairs = list(all_pairs(ENTRIES, counted))
    assert len(pairs) == 2 * len(ways) == 2 * len({frozenset(pair) for pair in ways})


def test_both_ways_are_those_that_are_found_alone() -> None:
    a, b = ENTRIES[0], ENTRIES[2]
    for signed in (False, True):
        for way, x, y in zip(both_ways(a.load(), b.load(), signed=signed), (a, b), (b, a)):
            found = mcs(x.load(), y.load(), signed=signed)
            assert way.mmcs == pytest.approx(mmcs(x.load(), y.load(), signed=signed), abs=1e-6)
            assert way.above == float((found > 0.9).double().mean())
            assert way.matched_cosine == pytest.approx(matched_cosine(x.load(), y.load(), signed=signed), abs=1e-6)
            assert sum(way.histogram) == int((found >= 0).sum())
            assert way.random_floor == random_floor(y.n_alive, 8, signed=signed)
