"""The text of a store, tokenised once for all processes that fill it.

    text/00007.npz      in the store's place: the sequences of shard 7, and where the text goes on; removed once it is committed
    text/00007.json     a bookmark in a streamed dataset, not before the end of shard 7; removed once the store is closed

One process at a time tokenises, the one that has the lease "tokens", and puts every shard's sequences there in order, its
own and the others', who wait for theirs. If it dies, another one goes on after the last file. What it puts is a function of
the description and the shard's number, so two that tokenise at once put the same bytes.
"""

import contextlib
import hashlib
import io
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, cast

import numpy as np

from pipeline import stopping
from pipeline.extract.packing import START, Packer
from pipeline.extract.text import Bookmark, Documents
from stores.activations import read_description
from stores.commits import commit_key
from stores.description import Description, TextPositions
from stores.lease import Leases
from stores.manifest import digest, json_bytes
from stores.place import Place
from stores.writer import StoreWriter

_LEASE = "tokens"
_DAMAGED = (FileNotFoundError, ValueError, TypeError, AttributeError, KeyError)  # of a bookmark that is, or is gone
_FIRST_PAUSE_S, _OWN_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.2, 2.0


PackerAt = Callable[[TextPositions, Bookmark | None], tuple[Packer, Documents]]


@dataclass(frozen=True)
class ShardText:
    """tokens: (n, context) the shard's sequences, fewer than it has room for where the text ends. text_end: where the text
    goes on."""

    shard: int
    tokens: np.ndarray
    text_end: TextPositions


def shared_text(
    writer: StoreWriter,
    packer_at: PackerAt,
    shards: Iterable[int],
    leases: Leases,
    stop: threading.Event,
) -> Iterator[ShardText]:
    """The text of the shards asked for, in their order, as far as there is text for them. Whoever has the lease tokenises
    on to the end of the store in a thread of its own, however slowly its shards are asked for.

    packer_at: a packer of the store's text that begins there, and what it reads. leases: of this process in the store's
    place. stop: ends the iteration, also while it waits or works for other processes; so does being asked to stop.
    """
    place, described = writer.place, writer.description
    last, over = max(writer.missing(), default=0), threading.Event()
    stopped = lambda: stop.is_set() or stopping.asked()  # noqa: E731
    tokenising: Future[None] | None = None

    def missing(shard: int) -> bool:
        """Whether a shard's text is still to come."""
        return (
            read_text(place, described, shard) is None
            and not place.exists(commit_key(shard))
            and shard < read_description(place).n_shards
        )

    try:
        with ThreadPoolExecutor(1) as pool, _set_at_the_end(over):
            for shard in shards:
                pause = _FIRST_PAUSE_S
                while not stopped() and missing(shard):
                    if tokenising is not None and tokenising.done():
                        tokenising.result()  # it failed, or went past a file that was lost since: once more from there
                        tokenising = None
                        leases.release(_LEASE)
                    if tokenising is None and leases.acquire(_LEASE) and missing(shard):
                        run = partial(_tokenise, writer, described, packer_at, shard, max(last, shard))
                        tokenising = pool.submit(run, lambda: stopped() or over.is_set())
                    stop.wait(pause)
                    pause = min(1.5 * pause, _OWN_PAUSE_S if tokenising else _LONGEST_PAUSE_S)
                found = read_text(place, described, shard)
                if stopped():
                    return
                if found is not None:
                    yield found
            if tokenising is not None:  # for the others
                tokenising.result()
    finally:
        leases.release(_LEASE)


def sweep(place: Place) -> None:
    """Remove what nobody needs once the store is closed."""
    for shard in _shards(place, "npz"):
        place.remove(text_key(shard))
    for shard in _shards(place, "json"):
        place.remove(_bookmark_key(shard))


def text_key(shard: int) -> str:
    return f"text/{shard:05d}.npz"


def _bookmark_key(shard: int) -> str:
    return f"text/{shard:05d}.json"


def _shards(place: Place, ending: str) -> list[int]:
    """Those of which such a file lies there. A process that was killed may have left half-written ones beside them."""
    found = (re.fullmatch(rf"(\d{{5,9}})\.{ending}", name) for name in place.names("text"))
    return sorted(int(name[1]) for name in found if name)


def _bookmark(place: Place, described: Description, shard: int, document: int) -> Bookmark | None:
    """The last one not behind a document, which is in the text of a shard."""
    for before in reversed(_shards(place, "json")):
        if before < shard:
            with contextlib.suppress(*_DAMAGED):  # an earlier one serves
                values = json.loads(place.read(_bookmark_key(before)))
                checksum = values.pop("checksum", None)
                if checksum == _bookmark_checksum(described, values) and values["document"] <= document:
                    return Bookmark(**values)
    return None


def read_text(place: Place, described: Description, shard: int) -> ShardText | None:
    """None: nobody has put it there yet, or it is damaged."""
    try:
        data = place.read(text_key(shard))
    except FileNotFoundError:
        return None
    checksum, data = data[:32], data[32:]
    if checksum != _checksum(described, shard, data):
        return None
    with np.load(io.BytesIO(data)) as arrays:
        train, heldout = (tuple(position) for position in arrays["text_end"].tolist())
        return ShardText(shard, arrays["tokens"], cast(TextPositions, (train, heldout)))


def _checksum(described: Description, shard: int, data: bytes) -> bytes:
    """Of a shard's text, and of whose it is."""
    return hashlib.sha256(f"{described.identity} {shard} ".encode() + data).digest()


def _bookmark_checksum(described: Description, values: dict[str, Any]) -> str:
    """Of a bookmark, and of whose text it is in."""
    return digest([described.identity, values])


def _tokenise(
    writer: StoreWriter,
    described: Description,
    packer_at: PackerAt,
    wanted: int,
    last: int,
    stopped: Callable[[], bool],
) -> None:
    """Put the text of each shard there, from the last known place before the wanted one to the last one, or to the one in
    which the text ends."""
    start, position = _known(writer, wanted)
    packer, texts = packer_at(position, _bookmark(writer.place, described, start, min(position)[0]))
    for shard in range(start, last + 1):
        if stopped():
            return
        tokens = shard_tokens(packer, described, shard)
        first, stop = described.sequences(shard)
        if ends := len(tokens) < stop - first:
            StoreWriter(writer.place, described).end_at(first + len(tokens))
        if len(tokens) and not writer.place.exists(commit_key(shard)):
            buffer = io.BytesIO()
            np.savez(buffer, tokens=tokens, text_end=np.array(packer.positions))
            checksum = _checksum(described, shard, buffer.getvalue())
            writer.place.put(text_key(shard), checksum + buffer.getvalue())
            if bookmark := texts.bookmark():
                values = asdict(bookmark)
                values["checksum"] = _bookmark_checksum(described, values)
                writer.place.put(_bookmark_key(shard), json_bytes(values))
        if ends:
            return


@contextlib.contextmanager
def _set_at_the_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def _known(writer: StoreWriter, shard: int) -> tuple[int, TextPositions]:
    """(a shard, where in the text it begins): the last one not after `shard` of which that is known."""
    shards = _shards(writer.place, "npz")  # before the commits: a file goes when its commit is there
    start, position = writer.text_position(shard)
    for before in reversed(shards):
        found = read_text(writer.place, writer.description, before) if start <= before < shard else None
        if found:
            return before + 1, found.text_end
    return start, position or START


def shard_tokens(packer: Packer, description: Description, shard: int) -> np.ndarray:
    """(n, context) a shard's sequences, each chunk's from its part's stream. The store ends at the first place for which
    that stream has none, whatever the other one has."""
    found = []
    for part, n in description.shard_parts(shard):
        found.append(packer.take(part, n))
        if len(found[-1]) < n:
            break
    return np.concatenate(found)
