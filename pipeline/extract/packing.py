"""Documents → token sequences of one length, each beginning with BOS: one stream for training, one that is held out.

A hash of a document's own text says which of the two it belongs to, so every source is in both, copies of one document are
in one, and a document that is added moves no other. The text is read and tokenised once, in order; each stream packs its
own documents. What one stream has and nobody has taken yet waits in memory until the other one has caught up: as many
tokens as the held-out share of the text read so far is off heldout_fraction, which grows with the square root of the text.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from stores.description import Part, TextPositions

PASSAGE_CHARACTERS = 16_384
Position = tuple[int, int, int]  # in a text: (document, passage in it, token in that); BOS is a passage's token 0
START: TextPositions = ((0, 0, 0), (0, 0, 0))
_BATCH = 64  # passages that are tokenised at a time


def passages(document: str) -> Iterator[str]:
    """The document; in pieces, cut after line ends where there are some, if it has more than PASSAGE_CHARACTERS.

    A passage is then hashed and begins with BOS as a document does: else a text of six novels has no held-out part.
    """
    start = 0
    while len(document) - start > PASSAGE_CHARACTERS:
        end = document.rfind("\n", start, start + PASSAGE_CHARACTERS) + 1 or start + PASSAGE_CHARACTERS
        yield document[start:end]
        start = end
    yield document[start:]


def part_of(passage: str, heldout_fraction: float) -> Part:
    """Which part a document, or a passage of a long one, belongs to: a function of its text and the fraction alone."""
    word = hashlib.sha256(passage.encode("utf-8", "surrogatepass")).digest()[:8]
    return "heldout" if int.from_bytes(word, "big") < heldout_fraction * 2**64 else "train"


class _Stream:
    """Tokens of one part's passages that are in no sequence yet."""

    def __init__(self, position: Position) -> None:
        self.position = position  # of the token that is next
        self.n_tokens = 0
        self._pieces: deque[tuple[Position, np.ndarray]] = deque()

    def add(self, document: int, passage: int, tokens: np.ndarray) -> None:
        """tokens: a whole passage's."""
        skip = self.position[2] if self.position[:2] == (document, passage) else 0
        self._pieces.append(((document, passage, skip), tokens[skip:]))
        self.n_tokens += len(tokens) - skip

    def take(self, n: int) -> np.ndarray:
        """(n,) the next tokens."""
        self.n_tokens -= n
        found = []
        while n:
            (document, passage, token), tokens = self._pieces.popleft()
            found.append(tokens[:n])
            self.position = document, passage, token + len(found[-1])
            if len(tokens) > n:
                self._pieces.appendleft((self.position, tokens[n:]))
            n -= len(found[-1])
        return np.concatenate(found) if found else np.empty(0, np.int32)


class Packer:
    """texts: the documents, all or from number `first` on. tokenizer: a `tokenizers.Tokenizer`. start: the positions to
    go on from, none before that document; it gives the sequences that would have followed them."""

    def __init__(
        self,
        texts: Iterable[str],
        tokenizer: Any,
        bos: int,
        context: int,
        heldout_fraction: float,
        start: TextPositions = START,
        first: int = 0,
    ) -> None:
        self.tokenizer, self.bos, self.context, self.heldout_fraction = tokenizer, bos, context, heldout_fraction
        self._streams: dict[Part, _Stream] = {"train": _Stream(start[0]), "heldout": _Stream(start[1])}
        self._passages = self._unread(texts, first, min(start)[0])

    @property
    def n_waiting(self) -> int:
        """Tokens in memory."""
        return sum(stream.n_tokens for stream in self._streams.values())

    @property
    def positions(self) -> TextPositions:
        """What follows the sequences that were taken: a function of their number in each part, however they were taken."""
        return self._streams["train"].position, self._streams["heldout"].position

    def take(self, part: Part, n: int) -> np.ndarray:
        """(n, context) int32, the part's next sequences: BOS, then context - 1 tokens of the stream in which BOS begins
        every passage. Fewer where the text ends; what does not fill the last one is left out."""
        stream, size = self._streams[part], self.context - 1
        while stream.n_tokens < n * size and self._read():
            pass
        n = min(n, stream.n_tokens // size)
        found = np.full((n, self.context), self.bos, np.int32)
        found[:, 1:] = stream.take(n * size).reshape(n, size)
        return found

    def _unread(self, texts: Iterable[str], first: int, start: int) -> Iterator[tuple[Part, int, int, str]]:
        """(part, document, passage, its text) of what is not before its stream's position."""
        for document, text in enumerate(itertools.islice(texts, start - first, None), start):
            for passage, piece in enumerate(passages(text)):
                part = part_of(piece, self.heldout_fraction)
                if (document, passage) >= self._streams[part].position[:2]:
                    yield part, document, passage, piece

    def _read(self) -> bool:
        """Tokenise some more. Returns whether there was more."""
        some = list(itertools.islice(self._passages, _BATCH))
        encoded = self.tokenizer.encode_batch_fast([piece for *_, piece in some], add_special_tokens=False)
        for (part, document, passage, _), encoding in zip(some, encoded, strict=True):
            self._streams[part].add(document, passage, np.array([self.bos, *encoding.ids], np.int32))
        return bool(some)
