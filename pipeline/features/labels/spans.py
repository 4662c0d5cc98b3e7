"""Labels of a document: where in its bytes each of them holds."""

from collections.abc import Callable

Span = tuple[int, int]  # [start, stop) in bytes
Spans = dict[str, list[Span]]
KNOWN = "known"  # the reserved label: where the others are known; without it, everywhere
# The labels of a document, always under the same names; ValueError where it has none. May be a user's own.
Labeller = Callable[[bytes], Spans]


class Lines:
    """The lines of a text, and where they begin in its bytes. A line ends after a newline and nowhere else."""

    def __init__(self, text: str) -> None:
        self.lines = [f"{line}\n" for line in text.split("\n")]
        self.lines[-1] = self.lines[-1][:-1]
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line.encode()))

    def byte(self, row: int, column: int) -> int:
        """row: from 1. column: in characters, as tokenize counts them."""
        if row > len(self.lines):
            return self.starts[-1]
        return self.starts[row - 1] + len(self.lines[row - 1][:column].encode())

    def byte_of_bytes(self, row: int, column: int) -> int:
        """row: from 1. column: in bytes, as ast counts them."""
        return self.starts[row - 1] + column
