import re

import numpy as np
import pytest

from pipeline.extract.packing import PASSAGE_CHARACTERS, START, Packer, part_of, passages
from pipeline.models.files import ModelFiles
from stores.description import Part

CONTEXT = 32
TEXTS = [f"def f{i}(x):\n    return x + {i}\n" * (i % 7) for i in range(300)]
LONG = "".join(f"def walk_{i}(path):\n    return os.listdir(path)[{i}:]\n\n" for i in range(1200))
PARTS: tuple[Part, Part] = ("train", "heldout")
TOKENIZER = ModelFiles.find("demo").tokenizer


def packer(texts: list[str], start=START, fraction: float = 0.2) -> Packer:
    return Packer(texts, TOKENIZER, 0, CONTEXT, fraction, start)


def streams(texts: list[str], fraction: float) -> dict[Part, np.ndarray]:
    """(n, CONTEXT) all sequences of each part, packed in the simplest way."""
    found = {}
    for part in PARTS:
        pieces = [piece for text in texts for piece in passages(text) if part_of(piece, fraction) == part]
        stream = [t for piece in pieces for t in [0, *TOKENIZER.encode(piece, add_special_tokens=False).ids]]
        n = len(stream) // (CONTEXT - 1)
        rows = np.array(stream[: n * (CONTEXT - 1)], np.int32).reshape(n, CONTEXT - 1)
        found[part] = np.concatenate([np.zeros((n, 1), np.int32), rows], 1)
    return found


@pytest.mark.parametrize("fraction", [0.02, 0.2, 0.9])
def test_packing_loses_no_token_of_either_part_and_begins_each_sequence_with_bos(fraction: float) -> None:
    texts = [*TEXTS, LONG]
    found, expected = packer(texts, fraction=fraction), streams(texts, fraction)
    assert found.take("heldout", 2).dtype == np.int32
    found = packer(texts, fraction=fraction)
    for part in PARTS:
        assert len(expected[part])
        assert np.array_equal(found.take(part, 10**6), expected[part])


def test_packing_goes_on_from_any_positions_as_if_it_had_not_stopped() -> None:
    texts = [*TEXTS[:150], LONG[:40_000], *TEXTS[150:]]
    through, steps = packer(texts), []
    while len(train := through.take("train", 3)):
        steps.append((train, through.take("heldout", 1), through.positions))
    assert len(steps) > 100
    for i in range(0, len(steps), 7):
        again = packer(texts, steps[i][2])
        for train, heldout, positions in steps[i + 1 : i + 20]:
            assert np.array_equal(again.take("train", 3), train)
            assert np.array_equal(again.take("heldout", 1), heldout)
            assert again.positions == positions


def test_positions_follow_from_how_many_were_taken_not_from_how() -> None:
    one, other = packer(TEXTS), packer(TEXTS)
    one.take("train", 30)
    one.take("heldout", 7)
    for _ in range(7):
        other.take("heldout", 1)
        other.take("train", 1)
    other.take("train", 23)
    assert one.positions == other.positions


def test_a_document_that_is_added_moves_no_other() -> None:
    def heldout(texts: list[str]) -> set[str]:
        return set(re.findall(r"f\d+\(", TOKENIZER.decode(packer(texts).take("heldout", 10**6).ravel().tolist())))

    before = heldout(TEXTS)
    assert 20 < len(before) < 80
    assert heldout(["# new\n" * 50, *TEXTS[:100], "# and new\n" * 50, *TEXTS[100:]]) == before


def test_the_share_of_documents_that_is_held_out_is_the_fraction() -> None:
    n = 20_000
    for fraction in (0.01, 0.3, 0.9):
        found = sum(part_of(f"document {i}", fraction) == "heldout" for i in range(n))
        assert abs(found / n - fraction) < 4 * (fraction * (1 - fraction) / n) ** 0.5


def test_a_larger_fraction_holds_out_the_same_documents_and_more() -> None:
    small, large = ({t for t in TEXTS if part_of(t, f) == "heldout"} for f in (0.1, 0.3))
    assert small < large


def test_long_documents_are_cut_after_line_ends_short_ones_not_at_all() -> None:
    found = list(passages(LONG))
    assert "".join(found) == LONG
    assert len(found) > 3
    assert all(piece.endswith("\n") and len(piece) <= PASSAGE_CHARACTERS for piece in found)
    assert list(passages("x" * PASSAGE_CHARACTERS)) == ["x" * PASSAGE_CHARACTERS]
    assert [len(piece) for piece in passages("x" * (PASSAGE_CHARACTERS + 1))] == [PASSAGE_CHARACTERS, 1]
    assert list(passages("")) == [""]


def test_what_waits_in_memory_is_how_far_the_share_is_off() -> None:
    """Nine sequences for training are taken to one that is held out."""
    texts = [f"def f{i}(x):\n    return x + {i}\n" * (1 + i * 7919 % 40) for i in range(3000)]
    found, waiting = packer(texts, fraction=0.1), []
    while len(found.take("train", 9)) == 9 and len(found.take("heldout", 1)) == 1:
        waiting.append(found.n_waiting)
    sizes = np.array(
        [len(encoding.ids) + 1 for encoding in TOKENIZER.encode_batch_fast(texts, add_special_tokens=False)]
    )
    assert len(waiting) * 10 * (CONTEXT - 1) > 0.8 * sizes.sum()
    deviation = (0.1 * 0.9 * (sizes**2).sum()) ** 0.5  # of the tokens that are held out
    assert max(waiting) < 3 * 10 * deviation + 64 * sizes.max()  # and what is read at a time
