"""Several processes share one pass of the tokeniser. Here they are threads, each with its own leases, as processes are."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.extract.config import TextConfig
from pipeline.extract.packing import START, Packer, passages
from pipeline.extract.shared_text import ShardText, read_text, shared_text, text_key
from pipeline.extract.text import Bookmark, Documents
from stores.description import TextPositions
from stores.lease import Leases
from stores.writer import StoreWriter
from tests.conftest import make_store
from tests.pipeline.extract.test_packing import CONTEXT, LONG, TEXTS, TOKENIZER

ALL = [*TEXTS, LONG]
N_PASSAGES = sum(len(list(passages(text))) for text in ALL)


class Counting:
    """A tokenizer that counts the passages it is given, and dies of too many."""

    def __init__(self, most: int = 10**9) -> None:
        self.n, self.most = 0, most

    def encode_batch_fast(self, texts: list[str], **options: Any) -> list[Any]:
        if self.n + len(texts) > self.most:
            raise RuntimeError("died")
        self.n += len(texts)
        return TOKENIZER.encode_batch_fast(texts, **options)

    def packer(self, position: TextPositions = START, bookmark: Bookmark | None = None) -> tuple[Packer, Documents]:
        texts = Documents(TextConfig())  # of the standard library, which gives no bookmarks
        return Packer(ALL, self, 0, CONTEXT, 0.2, position), texts


def empty_store(path: Path) -> StoreWriter:
    """Of 63 shards of 16 sequences; the text ends in the 31st."""
    found = make_store(path, n_sequences=1000, n_positions=CONTEXT - 1, heldout_fraction=0.2, close=False)
    assert isinstance(found, StoreWriter)
    for commit in (path / "commits").iterdir():
        commit.unlink()
    return found


def work(writer: StoreWriter, shards: list[int], tokenizer: Counting) -> Generator[ShardText]:
    with Leases(writer.place) as leases:
        yield from shared_text(writer, tokenizer.packer, shards, leases, threading.Event())


@pytest.fixture
def alone(tmp_path: Path) -> dict[int, ShardText]:
    """The text of every shard that has some, made by one process."""
    writer = empty_store(tmp_path / "alone")
    return {found.shard: found for found in work(writer, list(range(63)), Counting())}


def same(a: ShardText, b: ShardText) -> bool:
    return np.array_equal(a.tokens, b.tokens) and a.text_end == b.text_end


@pytest.mark.parametrize("n", [1, 3, 8])
def test_workers_tokenise_the_text_once(tmp_path: Path, alone: dict[int, ShardText], n: int) -> None:
    empty_store(tmp_path / "s")
    tokenizers = [Counting() for _ in range(n)]

    def run(i: int) -> list[ShardText]:
        return list(work(StoreWriter.resume(tmp_path / "s"), list(range(i, 63, n)), tokenizers[i]))

    with ThreadPoolExecutor(n) as pool:
        found = {text.shard: text for texts in pool.map(run, range(n)) for text in texts}
    assert len(alone) == 31
    assert found.keys() == alone.keys()
    assert all(same(found[shard], alone[shard]) for shard in alone)
    assert sum(tokenizer.n for tokenizer in tokenizers) == N_PASSAGES


def test_another_worker_goes_on_where_one_was_lost(tmp_path: Path, alone: dict[int, ShardText]) -> None:
    writer = empty_store(tmp_path / "s")
    first, second = Counting(N_PASSAGES // 2), Counting()
    with pytest.raises(RuntimeError, match="died"):
        list(work(writer, [0, 30], first))
    *_, last = sorted((tmp_path / "s" / "text").iterdir())
    last.write_bytes(last.read_bytes()[:-1])
    (tmp_path / "s" / "text" / f".00021.npz.{'0' * 32}.partial").write_bytes(b"half")  # it was killed as it wrote this
    found = list(work(StoreWriter.resume(tmp_path / "s"), list(range(1, 63)), second))
    assert [text.shard for text in found] == list(alone)[1:]
    assert all(same(text, alone[text.shard]) for text in found)
    assert 0 < first.n < N_PASSAGES
    assert second.n < N_PASSAGES


@pytest.mark.parametrize("byte", [0, 40, 32 + 60, -1])
def test_text_that_was_altered_exchanged_or_is_another_stores_is_made_again(
    tmp_path: Path, alone: dict[int, ShardText], byte: int
) -> None:
    """An altered zip file can say that it is encrypted, which is an error of its own."""
    writer = empty_store(tmp_path / "s")
    texts = [writer.place.read(text_key(shard)) for shard in (5, 6) if list(work(writer, [0], Counting()))]
    altered = bytearray(texts[0])
    altered[byte] ^= 1
    for data in (altered, texts[1], (tmp_path / "alone" / text_key(5)).read_bytes()[:32] + texts[1][32:]):
        writer.place.put(text_key(5), bytes(data))
        assert read_text(writer.place, writer.description, 5) is None
    other = replace(writer.description, model_digest="another")
    assert read_text(writer.place, other, 6) is None
    [found] = work(writer, [5], Counting())
    assert same(found, alone[5])


def test_who_is_slow_with_its_own_shards_holds_nobody_up(tmp_path: Path) -> None:
    writer = empty_store(tmp_path / "s")
    slow = work(writer, [0, 1], Counting())
    next(slow)  # it has the lease, and asks for no more
    assert len(list(work(StoreWriter.resume(tmp_path / "s"), list(range(2, 63)), Counting()))) == 29
    slow.close()


def test_a_worker_that_waits_for_another_can_be_stopped(tmp_path: Path) -> None:
    writer, stop = empty_store(tmp_path / "s"), threading.Event()
    with ThreadPoolExecutor(1) as pool, Leases(writer.place) as holder, Leases(writer.place) as leases:
        assert holder.acquire("tokens")
        waiting = shared_text(StoreWriter.resume(tmp_path / "s"), Counting().packer, [30], leases, stop)
        ended = pool.submit(list, waiting)
        stop.set()
        assert ended.result() == []


def test_a_streamed_dataset_is_entered_where_the_last_process_left_it(tmp_path: Path) -> None:
    """A file of it that comes long before that place is not read again: here it is damaged meanwhile."""
    import datasets

    for i, texts in enumerate([ALL[:3], ALL[3:5], ALL[5:8], [*ALL[8:], *TEXTS]]):
        datasets.Dataset.from_dict({"text": [None, *texts]}).to_parquet(str(tmp_path / "d" / f"{i}.parquet"))
    config, starts = TextConfig(source="hub", dataset=str(tmp_path / "d")), []

    def packer_at(position: TextPositions, bookmark: Bookmark | None) -> tuple[Packer, Documents]:
        starts.append(bookmark)
        texts = Documents(config, bookmark)
        return Packer(texts, tokenizer, 0, CONTEXT, 0.2, position, texts.first), texts

    def work_on(name: str, shards: list[int]) -> Generator[ShardText]:
        writer = StoreWriter.resume(tmp_path / name)
        with Leases(writer.place) as leases:
            yield from shared_text(writer, packer_at, shards, leases, threading.Event())

    for name in ("alone", "two"):
        empty_store(tmp_path / name)
    tokenizer = Counting()
    expected = list(work_on("alone", list(range(63))))
    tokenizer = Counting(N_PASSAGES)
    with pytest.raises(RuntimeError, match="died"):
        list(work_on("two", list(range(63))))
    (tmp_path / "d" / "1.parquet").write_bytes(b"")
    tokenizer = Counting()
    found = list(work_on("two", list(range(63))))
    assert starts[:2] == [None, None]
    assert starts[2].document >= 8
    assert [text.shard for text in found] == [text.shard for text in expected]
    assert all(map(same, found, expected))
