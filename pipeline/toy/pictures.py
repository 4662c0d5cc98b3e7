"""What the toys' pictures share. The only importer of matplotlib here."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#666666", "#882255"]
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 130,
    "axes.titlesize": 9,
}


def style():
    """A context in which all pictures are drawn alike."""
    return rc_context(_STYLE)


def axes(n_rows: int, n_columns: int, width: float = 9.0, height: float = 3.2) -> tuple[Figure, Any]:
    """A figure and its axes, (n_rows, n_columns), or a single one."""
    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(n_rows, n_columns)
    return figure, found


def heat(
    axis: Any,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    digits: int = 2,
    low: float | None = None,
    high: float | None = None,
    cmap: str = "viridis",
) -> None:
    """A table as colours, the numbers written into the cells; None leaves a cell empty."""
    table = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    image = axis.imshow(table, aspect="auto", cmap=cmap, vmin=low, vmax=high)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)
    for spine in axis.spines.values():
        spine.set_visible(False)
    for i, j in zip(*np.nonzero(~np.isnan(table))):
        red, green, blue, _ = image.cmap(image.norm(table[i, j]))
        colour = "black" if 0.3 * red + 0.6 * green + 0.1 * blue > 0.5 else "white"
        axis.text(j, i, f"{table[i, j]:.{digits}f}", ha="center", va="center", fontsize=7, color=colour)


def png(figure: Figure) -> bytes:
    """The picture's file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def data_uri(data: bytes) -> str:
    """A picture inside a page."""
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
