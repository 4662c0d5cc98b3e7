"""How training went, as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import EngFormatter

from pipeline.pictures import save_figure
from pipeline.train import logs
from pipeline.train.rotations.findings import draw_by_n_fit

_FVU = {"fvu": "FVU", "fvu_whitened": "FVU of whitened activations"}
_PANELS = {**_FVU, "l0": "L0", "dead": "dead features"}


def draw(folder: Path, site: str) -> None:
    """What the dictionaries at a site, those in the folder, show together; nothing where they show nothing."""
    _draw_curves(folder, site)
    draw_by_n_fit(folder, site)


def _draw_curves(folder: Path, site: str) -> None:
    """folder/curves.png: reconstruction, of whitened activations by itself, sparsity and dead features against tokens, a
    line for each dictionary that has them in its metrics.jsonl."""
    curves = {path.parent.name: list(logs.records(path)) for path in sorted(folder.glob(f"*/{logs.METRICS}"))}
    curves = {name: rows for name, rows in curves.items() if rows and _FVU.keys() & rows[-1].keys()}
    if not curves:
        return
    panels = {key: label for key, label in _PANELS.items() if any(key in rows[-1] for rows in curves.values())}
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.4 * len(panels), 4.2), constrained_layout=True, squeeze=False
    )
    colours, lines = plt.get_cmap("turbo"), {}
    for i, (name, rows) in enumerate(curves.items()):
        colour = colours(0.05 + 0.9 * i / max(1, len(curves) - 1))
        for axis, metric in zip(axes[0], panels, strict=True):
            points = [(row["tokens"], row[metric]) for row in rows if metric in row]
            if points:
                (lines[name],) = axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.2)
    for axis, (metric, label) in zip(axes[0], panels.items(), strict=True):
        axis.set_title(label, loc="left", fontsize=10)
        axis.set_xlabel("tokens")
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_yscale("symlog" if metric == "dead" else "log")
        axis.set_ylim(bottom=0 if metric == "dead" else None)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Training at {site}", x=0.01, ha="left", fontsize=11)
    figure.legend(lines.values(), lines, loc="outside right upper", fontsize=7, frameon=False)
    save_figure(figure, folder / "curves.png", dpi=110)
    plt.close(figure)
