"""Tables in the terminal. The only importer of rich."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.stages import Progress
from stores.manifest import read_json


def show_status(rows: Sequence[Progress]) -> None:
    """A line per unit."""
    shown = [
        [
            row.stage,
            f"{row.folder.parent.name}/{row.unit}" if row.stage != "extract" else row.unit,
            row.state,
            f"{row.done} / {row.of} {row.counted}",
            f"{row.rate:.2f} {row.counted}/s" if row.rate else "",
            f"{row.eta_s:.0f} s" if row.eta_s is not None else "",
            str(row.folder),
        ]
        for row in rows
    ]
    _table("", ["stage", "unit", "state", "done / of", "rate", "ETA", "where"], shown, n_left=7)


def show_scores(path: Path) -> None:
    """path: of scores.json. A table per hook point, and one of the pairs that say how stable features are."""
    scores = read_json(path)

    def number(row: dict, key: str, digits: int = 3) -> str:
        value = row.get(key)
        return "" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)

    for hook_point in dict.fromkeys(row["hook_point"] for row in scores["dictionaries"]):
        rows = [row for row in scores["dictionaries"] if row["hook_point"] == hook_point]
        sparsities = sorted(
            int(k.removeprefix("fvu_at_l0_")) for k in {k for r in rows for k in r} if k.startswith("fvu_at_l0_")
        )
        first = rows[0]
        title = f"{hook_point}, {first['n_rows']:,} held-out rows"
        if "ce" in first:
            title += (
                f"; CE on {first['n_predictions']:,} predictions: clean {first['ce_clean']:.3f}, zero ablation "
                f"{first['ce_zero']:.3f}, mean ablation {first['ce_mean']:.3f} nats"
            )
        columns = ["dictionary", "d_sae", "L0", "FVU", "CE score (zero)", "(mean)", "KL", "dead", "rare",
                   *(f"FVU at L0 {k}" for k in sparsities)]  # fmt: skip
        table = [
            [row["name"], str(row["d_sae"]), number(row, "l0", 1), number(row, "fvu"), number(row, "ce_score_zero"),
             number(row, "ce_score_mean"), number(row, "kl"), str(row["dead"]), str(row["ultra_low_density"]),
             *(number(row, f"fvu_at_l0_{k}") for k in sparsities)]
            for row in rows
        ]  # fmt: skip
        _table(title, columns, table)
        shown = ("seed", "larger", "foreign")
        pairs = [p for p in scores["pairs"] if p["hook_point"] == hook_point and p["relation"] in shown]
        if pairs:
            table = [
                [
                    p["a"],
                    p["b"],
                    p["relation"],
                    number(p, "mmcs"),
                    number(p, "random_floor"),
                    f"{p['fraction_above_0.9']:.0%}",
                ]
                for p in pairs
            ]
            _table(
                "MMCS of a's features in b's",
                ["a", "b", "relation", "MMCS", "random floor", "above .9"],
                table,
                n_left=3,
            )
    print(f"all scores, and MMCS between methods: {path}; pictures: {path.parent}/*/*.png")


def _table(title: str, columns: list[str], rows: list[list[str]], n_left: int = 1) -> None:
    """The first n_left columns are text, the others numbers."""
    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < n_left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()
