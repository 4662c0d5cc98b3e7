"""Pictures as files that are there whole or not at all."""

import io
from pathlib import Path
from typing import Any

from stores.manifest import commit_bytes


def save_figure(figure: Any, path: Path, **options: Any) -> None:
    """Write a matplotlib figure as PNG. options: of savefig."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", **options)
    commit_bytes(path, picture.getvalue())
