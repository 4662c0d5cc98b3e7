"""The text of a store, tokenised once for all processes that fill it.

    text/00007.npz      in the store's place: the sequences of shard 7, and where the text goes on; removed once it is committed
    text/00007.json     a bookmark in a streamed dataset, not before the end of shard 7; removed once the store is closed

One process at a time tokenises, the one that has the lease "tokens", and puts every shard's sequences there in order, its
own and the others', who wait for theirs. If it dies, another one goes on after the last file. What it puts is a function of
the description and the shard's number, so two that tokenise at once put the same bytes.
"""

import contextlib
import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np

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
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


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
    """The text of the shards asked for, in their order, and of the one in which the text ends if this process finds it.

    packer_at: a packer of the store's text that begins there, and what it reads. leases: of this process in the store's
    place. stop: ends the iteration, also while it waits or works for other processes.
    """
    place, described = writer.place, writer.description
    last = max(writer.missing(), default=0)
    tokeniser: Iterator[ShardText] | None = None
    try:
        for shard in shards:
            found, pause = read_text(place, shard), _FIRST_PAUSE_S
            while found is None and not stop.is_set() and not place.exists(commit_key(shard)):
                if tokeniser is not None:
                    made = next(tokeniser, None)
                    if made is None:  # past a file that was lost since: once more from there
                        tokeniser = None
                    elif made.shard == shard or _is_last(made, described):
                        found = made
                    continue
                ours = leases.acquire(_LEASE)
                found = read_text(place, shard)  # it, or the text's end, may have come before the lease did
                if found is None and read_description(place).n_shards <= shard:
                    return
                if found is None and ours:
                    tokeniser = _tokenised(writer, described, packer_at, shard, last)
                elif found is None:
                    stop.wait(pause)
                    pause = min(1.5 * pause, _LONGEST_PAUSE_S)
            if found is not None:
                yield found
            if stop.is_set() or (found and _is_last(found, described)):
                return
        for _ in tokeniser or ():  # for the others
            if stop.is_set():
                return
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


def _bookmark(place: Place, shard: int, document: int) -> Bookmark | None:
    """The last one not behind a document, which is in the text of a shard."""
    for before in reversed(_shards(place, "json")):
        if before < shard:
            with contextlib.suppress(*_DAMAGED):  # an earlier one serves
                values = json.loads(place.read(_bookmark_key(before)))
                checksum = values.pop("checksum", None)
                if checksum == digest(values) and values["document"] <= document:
                    return Bookmark(**values)
    return None


def read_text(place: Place, shard: int) -> ShardText | None:
    """None: nobody has put it there yet, or it is damaged."""
    try:
        with np.load(io.BytesIO(place.read(text_key(shard)))) as arrays:
            train, heldout = (tuple(position) for position in arrays["text_end"].tolist())
            return ShardText(shard, arrays["tokens"], cast(TextPositions, (train, heldout)))
    except (FileNotFoundError, zipfile.BadZipFile, ValueError, KeyError, EOFError):
        return None


def _tokenised(
    writer: StoreWriter, described: Description, packer_at: PackerAt, wanted: int, last: int
) -> Iterator[ShardText]:
    """The text of each shard to the last one, or to the one in which the text ends, put there as it comes; from the last
    known place before the wanted one."""
    start, position = _known(writer, wanted)
    packer, texts = packer_at(position, _bookmark(writer.place, start, min(position)[0]))
    for shard in range(start, last + 1):
        found = ShardText(shard, shard_tokens(packer, described, shard), packer.positions)
        if not writer.place.exists(commit_key(shard)):
            buffer = io.BytesIO()
            np.savez(buffer, tokens=found.tokens, text_end=np.array(found.text_end))
            writer.place.put(text_key(shard), buffer.getvalue())
            if bookmark := texts.bookmark():
                values = asdict(bookmark)
                writer.place.put(_bookmark_key(shard), json_bytes(values | {"checksum": digest(values)}))
        if _is_last(found, described):  # said before the lease is given back: else another one looks for more
            StoreWriter(writer.place, described).end_at(described.sequences(shard)[0] + len(found.tokens))
        yield found
        if _is_last(found, described):
            return


def _known(writer: StoreWriter, shard: int) -> tuple[int, TextPositions]:
    """(a shard, where in the text it begins): the last one not after `shard` of which that is known."""
    shards = _shards(writer.place, "npz")  # before the commits: a file goes when its commit is there
    start, position = writer.text_position(shard)
    for before in reversed(shards):
        found = read_text(writer.place, before) if start <= before < shard else None
        if found and not _is_last(found, writer.description):
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


def _is_last(found: ShardText, description: Description) -> bool:
    first, last = description.sequences(found.shard)
    return len(found.tokens) < last - first
