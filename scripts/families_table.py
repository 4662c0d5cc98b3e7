"""Families at equal L0: a table in Markdown and a picture, from what the recipe `families` scored.

python -m scripts.families_table runs/families [--picture .github/pictures/families.png]

At the L0 that has several seeds: mean over them, and ± half of largest less smallest. MMCS of seeds: mean over pairs.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from pipeline.pictures import save_figure
from pipeline.score.pictures import _COLOURS
from stores.manifest import read_json

Rows = list[dict[str, Any]]
COLUMNS = {
    "l0": ("L0", 1),
    "fvu": ("FVU", 3),
    "ce_score_zero": ("CE score (zero)", 3),
    "kl": ("KL", 3),
    "dead": ("dead", 0),
}


def asked(row: dict[str, Any]) -> float:
    """The L0 that the recipe asked for, by the dictionary's name."""
    part = next(
        part for part in row["name"].split("-") if part.startswith("l0_") or (part[0] == "k" and part[1:].isdigit())
    )
    return float(part.removeprefix("l0_").removeprefix("k"))


def spread(values: list[float], digits: int) -> str:
    half = (max(values) - min(values)) / 2
    return f"{mean(values):.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def table(by_method: dict[str, Rows], pairs: Rows, l0: float) -> str:
    """Best FVU first."""
    titles = ["family", *(title for title, _ in COLUMNS.values()), "MMCS of seeds"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    found = {method: [row for row in rows if asked(row) == l0] for method, rows in by_method.items()}
    for method, rows in sorted(found.items(), key=lambda item: mean(row["fvu"] for row in item[1])):
        names = {row["name"] for row in rows}
        mmcs = [p["mmcs"] for p in pairs if p["relation"] == "seed" and {p["a"], p["b"]} <= names]
        cells = [spread([row[key] for row in rows], digits) for key, (_, digits) in COLUMNS.items()]
        lines.append(f"| `{method}` | {' | '.join(cells)} | {spread(mmcs, 2)} |")
    return "\n".join(lines)


def targets(by_method: dict[str, Rows]) -> str:
    """What was asked for and what came out, of families that search for it."""
    searched = {m: rows for m, rows in by_method.items() if any("-l0_" in row["name"] for row in rows)}
    every = sorted({asked(row) for rows in searched.values() for row in rows})
    lines = [f"| l0_target | {' | '.join(f'{l0:g}' for l0 in every)} |", "|---" * (len(every) + 1) + "|"]
    for method, rows in searched.items():
        cells = [", ".join(f"{row['l0']:.1f}" for row in rows if asked(row) == l0) for l0 in every]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(by_method: dict[str, Rows], path: Path) -> None:
    """FVU and CE score against L0, a line for each family."""
    figure = Figure(figsize=(10, 4), layout="constrained", dpi=110)
    left, right = figure.subplots(1, 2)
    for method, rows in by_method.items():
        rows = sorted(rows, key=lambda row: row["l0"])
        for axis, key in ((left, "fvu"), (right, "ce_score_zero")):
            axis.plot([r["l0"] for r in rows], [r[key] for r in rows], ".-", color=_COLOURS[method], label=method, lw=1)
    left.set(ylabel="FVU, fraction of variance unexplained", yscale="log")
    right.set(ylabel="CE score (zero ablation)")
    left.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2, 0.5], ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5"])
    left.set_yticks([], minor=True)
    for axis in (left, right):
        axis.set(xscale="log", xlabel="L0, active features a token", xticks=[8, 16, 32, 64, 128])
        axis.set_xticks([], minor=True)
        axis.set_xticklabels(["8", "16", "32", "64", "128"])
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=7, ncols=2)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    scores = read_json(args.run / "score" / "scores.json")
    by_method: dict[str, Rows] = defaultdict(list)
    for row in scores["dictionaries"]:
        by_method[row["method"]].append(row)
    several = [asked(row) for row in scores["dictionaries"] if row["name"].endswith("s1")]
    print(table(by_method, scores["pairs"], several[0]) + "\n\n" + targets(by_method))
    draw(by_method, args.picture or args.run / "families.png")


if __name__ == "__main__":
    main()
