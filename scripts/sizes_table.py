"""Dictionaries by their number of features and the tokens that they saw: tables in Markdown, from runs of the recipe `sizes`.

python -m scripts.sizes_table runs/sizes-125k runs/sizes-250k runs/sizes

Each cell is the mean over seeds ± standard deviation; MMCS of seeds is the mean over both directions of each pair.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.plus_minus import mean_and_spread
from pipeline.score.spread import member_values
from stores.manifest import read_json

COLUMNS = {
    "fvu": ("FVU", 3),
    "ce_score_zero": ("CE score (zero)", 3),
    "dead": ("dead features", 0),
    "mmcs": ("MMCS of seeds", 2),
}


def n_tokens(run: Path, scores: dict[str, Any]) -> int:
    """That each dictionary of a run saw."""
    first = scores["dictionaries"][0]
    return int(read_json(run / "train" / first["site"] / first["name"] / "plan.json")["settings"]["n_tokens"])


def table(key: str, runs: dict[int, dict[str, Any]]) -> str:
    """A row for each number of features, a column for each number of tokens."""
    title, digits = COLUMNS[key]
    cells: dict[int, dict[int, str]] = {}
    for tokens, scores in runs.items():
        for group in scores["groups"]:
            values = member_values(scores, group, key)
            cells.setdefault(group["d_sae"], {})[tokens] = mean_and_spread(values, digits)
    lines = [f"| {title} | {' | '.join(f'{n:,} tokens' for n in runs)} |", "|---" * (len(runs) + 1) + "|"]
    lines += [f"| {d:,} features | {' | '.join(own.get(n, '') for n in runs)} |" for d, own in sorted(cells.items())]
    return "\n".join(lines)


def tables(folders: Sequence[Path]) -> str:
    scores = {run: read_json(run / "score" / "scores.json") for run in folders}
    runs = {n_tokens(run, own): own for run, own in scores.items()}
    return "\n\n".join(table(key, dict(sorted(runs.items()))) for key in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    print(tables(parser.parse_args().runs))


if __name__ == "__main__":
    main()
