"""argv → (stage, recipe). The only reader of sys.argv."""

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import UserError

app = typer.Typer(
    help="Take the features of a transformer out of superposition: extract, train, score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe, or the path of a .toml file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as train.topk.k=64.")]
Runs = Annotated[Path, typer.Option("--runs", help="The folder that run folders lie in.")]
Name = Annotated[str | None, typer.Option("--name", help="The run folder's name instead of the recipe's.")]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Remake what was made with other settings; the old goes when the new is whole."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")]
Workers = Annotated[
    str, typer.Option("--worker", metavar="I/N", help="Be process I of N that fill one store (extract).")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _first_process() -> bool:
    """Whether this is the first of the processes that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _guarded(debug: bool, work: Callable[[], None]) -> None:
    """Exit code 2 and one line for bad input, 1 and one line for what failed while running."""
    try:
        work()
    except Exception as error:
        if debug:
            traceback.print_exc()
        known = isinstance(error, UserError | ValueError | RuntimeError | OSError)
        message = str(error).splitlines()[0] if str(error) else ""
        kind = "" if known and message else f"{type(error).__name__}: "
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            where = f" at {error.filename}" if error.filename else ""
            kind, message = "", f"no space left{where}: make room and run the same command again, it goes on from there"
        if _first_process() or not known:  # what all find, one says
            print(f"unmix: {kind}{message}", file=sys.stderr)
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None


def _run_stages(
    stages: list[str],
    recipe: str,
    sets: list[str] | None,
    runs: Path,
    name: str | None,
    replace: bool,
    device: str,
    debug: bool,
    worker: str = "0/1",
) -> None:
    def work() -> None:
        from pipeline.stages import load_recipe

        loaded = load_recipe(recipe, sets, name)
        from pipeline.extract.stage import Worker
        from pipeline.stages import STAGES, Run, check, choose_device

        run = Run(loaded, runs / loaded.name, choose_device(device), replace, Worker.parse(worker))
        if replace and run.worker.n > 1:
            raise UserError(
                "--replace with --worker: the workers would remove each other's work; replace with one first"
            )
        if "WORLD_SIZE" in os.environ and stages != ["train"]:
            raise UserError(f"torchrun is for train alone, not {' '.join(stages)}: extract takes --worker I/N")
        if "extract" in stages:
            check(loaded)
        for stage in stages:
            if stage == "extract" and loaded.store and len(stages) > 1:
                continue
            started = time.time()
            did = STAGES[stage](run)
            took = f"{time.time() - started:.1f} s"
            what = f"done in {took}" if did else f"nothing to do, all is there ({took})"
            if _first_process():
                print(f"{stage}: {what}, {run.folder / stage}")
            if stage == "score":
                _show_scores(run.folder / "score" / "scores.json")

    _guarded(debug, work)


def _stage_command(stage: str, text: str) -> None:
    def command(
        recipe: RecipeName = "demo",
        sets: Sets = None,
        runs: Runs = Path("runs"),
        name: Name = None,
        replace: Replace = False,
        device: Device = "auto",
        debug: Debug = False,
    ) -> None:
        _run_stages(
            ["extract", "train", "score"] if stage == "run" else [stage],
            recipe,
            sets,
            runs,
            name,
            replace,
            device,
            debug,
        )

    app.command(stage, help=text)(command)


@app.command()
def extract(
    recipe: RecipeName = "demo",
    sets: Sets = None,
    runs: Runs = Path("runs"),
    name: Name = None,
    replace: Replace = False,
    device: Device = "auto",
    worker: Workers = "0/1",
    debug: Debug = False,
) -> None:
    """Text and a language model → an activation store."""
    _run_stages(["extract"], recipe, sets, runs, name, replace, device, debug, worker)


@app.command()
def verify(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A store's folder or URL, a run folder, a dictionary.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Take back what is damaged, so that it is made again.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Check every byte of a store, finished or not, or of all that a run folder holds. Changes nothing without --repair.

    Exit code 0: all that is committed is sound, or was led back to that by --repair; 1: damage was found, or something
    could not be read; 2: there is nothing to check.
    """

    def work() -> None:
        from pipeline.verify import verify as check

        check(path, repair)

    _guarded(debug, work)


_stage_command("run", "extract, train and score, one after another.")
_stage_command("train", "An activation store → feature dictionaries.")
_stage_command("score", "Feature dictionaries → scores, a table, pictures.")


@app.command()
def toy(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Toys; all by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A smoke run, in a folder of its own.")] = False,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="TOY.KEY=VALUE", help="Override.")] = None,
    runs: Runs = Path("runs"),
    replace: Replace = False,
    debug: Debug = False,
) -> None:
    """Small models where the truth is known → numbers, pictures, a page each."""

    def work() -> None:
        from pipeline.toy import stage

        started = time.time()
        did = stage.run(names or [], runs, sets or [], quick, replace)
        took = f"{time.time() - started:.1f} s"
        page = runs / ("toy-quick" if quick else "toy") / "index.html"
        print(f"toy: {f'done in {took}' if did else f'nothing to do, all is there ({took})'}, {page}")

    _guarded(debug, work)


@app.command()
def status(
    recipe: RecipeName = "demo",
    sets: Sets = None,
    runs: Runs = Path("runs"),
    name: Name = None,
    debug: Debug = False,
) -> None:
    """What is done, what is under way, what is left."""

    def work() -> None:
        from pipeline.stages import Run, load_recipe
        from pipeline.stages import status as rows_of

        loaded = load_recipe(recipe, sets, name)
        _show_status(rows_of(Run(loaded, runs / loaded.name, "cpu")))

    _guarded(debug, work)


def _table(title: str, columns: list[str], rows: list[list[str]], n_left: int = 1) -> None:
    """The first n_left columns are text, the others numbers."""
    from rich.console import Console
    from rich.table import Table

    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < n_left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


def _show_status(rows: list) -> None:
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


def _show_scores(path: Path) -> None:
    from stores.manifest import read_json

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


def main() -> None:
    """The console command."""
    app()


if __name__ == "__main__":
    main()
