"""Files that others wrote: what is said when one cannot be read."""

import json
from pathlib import Path
from typing import Any

from pipeline.config import UserError


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises UserError naming the file: it cannot be read, or holds something else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(value, dict):
        raise UserError(f"extract.model: {path} holds a JSON {type(value).__name__}, expected an object")
    return value


def damaged(path: Path, error: BaseException) -> UserError:
    """What to say of a file that a library could not read."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as reason:
        return UserError(f"extract.model: cannot read {path}: {reason.strerror}")
    if not head:
        return UserError(f"extract.model: {path} is empty: copy or download it again")
    if head.startswith(b"version https://git-lfs"):
        return UserError(f"extract.model: {path} is a Git LFS pointer: run `git lfs pull` in {path.parent}")
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"extract.model: {path} is damaged ({reason}): copy or download it again")
