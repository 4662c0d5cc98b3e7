"""Families at equal L0: a table in Markdown and a picture, from what the recipe `families` scored.

python -m scripts.families_table runs/families [--picture .github/pictures/families.png]

At the L0 that has several seeds: mean over them ± standard deviation. MMCS of seeds: over all pairs of them ± √n times
the jackknife's standard error. ~: not apart from the next by Welch's t at 95%. Below it what the numbers say of published
orderings.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from pipeline.pictures import save_figure
from pipeline.plus_minus import mean_and_spread
from pipeline.score.orderings import HOLDS, NO_SPREAD, published_orderings, verdict
from pipeline.score.pictures import _COLOURS
from pipeline.score.spread import member_values
from stores.manifest import read_json

Rows = list[dict[str, Any]]
COLUMNS = {
    "l0": ("L0", 1),
    "fvu": ("FVU", 3),
    "ce_score_zero": ("CE score (zero)", 3),
    "kl": ("KL", 3),
    "dead": ("dead", 0),
}


def asked(name: str) -> float:
    """The L0 that the recipe asked for, by the dictionary's name."""
    part = next(part for part in name.split("-") if part.startswith("l0_") or (part[0] == "k" and part[1:].isdigit()))
    return float(part.removeprefix("l0_").removeprefix("k"))


def table(scores: dict[str, Any], l0: float) -> str:
    """Best FVU first."""
    columns = {**COLUMNS, "mmcs": ("MMCS of seeds", 2)}
    lines = [f"| family | {' | '.join(title for title, _ in columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    groups = [g for g in scores["groups"] if asked(g["name"]) == l0]
    found = [(g["method"], {key: member_values(scores, g, key) for key in columns}) for g in groups]
    found.sort(key=lambda item: mean(item[1]["fvu"]))
    for i, (method, values) in enumerate(found):
        cells = {key: mean_and_spread(values[key], digits) for key, (_, digits) in columns.items()}
        apart = i + 1 == len(found) or verdict(values["fvu"], found[i + 1][1]["fvu"]) == HOLDS
        cells["fvu"] = "~" * (not apart) + cells["fvu"]
        lines.append(f"| `{method}` | {' | '.join(cells.values())} |")
    return "\n".join(lines)


def orderings(scores: dict[str, Any]) -> str:
    """A line for each, a column for each L0 that was asked for."""
    found = published_orderings(scores)
    l0 = sorted({asked(row["less"]) for row in found})
    lines = [f"| at equal L0 | source | {' | '.join(f'{k:g}' for k in l0)} |", "|---" * (len(l0) + 2) + "|"]
    for name, source in dict.fromkeys((row["ordering"], row["source"]) for row in found):
        cells = {asked(row["less"]): row for row in found if row["ordering"] == name}
        shown = [f"{row['verdict'].removesuffix(NO_SPREAD)}: {', '.join(row['values'])}" if (row := cells.get(k)) else ""
                 for k in l0]  # fmt: skip
        lines.append(f"| {name} | {source} | {' | '.join(shown)} |")
    return "\n".join(lines)


def targets(by_method: dict[str, Rows]) -> str:
    """What was asked for and what came out, of families that search for it."""
    searched = {m: rows for m, rows in by_method.items() if any("-l0_" in row["name"] for row in rows)}
    every = sorted({asked(row["name"]) for rows in searched.values() for row in rows})
    lines = [f"| l0_target | {' | '.join(f'{l0:g}' for l0 in every)} |", "|---" * (len(every) + 1) + "|"]
    for method, rows in searched.items():
        cells = [", ".join(f"{row['l0']:.1f}" for row in rows if asked(row["name"]) == l0) for l0 in every]
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
    several = [asked(row["name"]) for row in scores["dictionaries"] if row["name"].endswith("s1")]
    print("\n\n".join([table(scores, several[0]), orderings(scores), targets(by_method)]))
    draw(by_method, args.picture or args.run / "families.png")


if __name__ == "__main__":
    main()
