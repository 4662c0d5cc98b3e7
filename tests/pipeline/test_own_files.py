import os
import sys
from pathlib import Path

import pytest

from pipeline.own_files import own_module


def test_a_file_that_changes_within_its_second_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught the digest of the new file beside what the old one does."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file, digests = tmp_path / "own.py", []
    for value in (1, 2):
        file.write_text(f"x = {value}\n")
        os.utime(file, (1_000_000_000, 1_000_000_000))
        module, digest = own_module(str(file), "own.py")
        digests.append(digest)
        assert module.x == value
    assert digests[0] != digests[1]
