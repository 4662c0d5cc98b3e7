"""Arrays in a compressed file: all of it is there, or nothing."""

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stores.manifest import commit_bytes


def commit_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    commit_bytes(file, buffer.getvalue())


def read_arrays(file: Path) -> dict[str, np.ndarray] | None:
    """None: it is missing or damaged (a zip file has checksums)."""
    try:
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error):
        return None
