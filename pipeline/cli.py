"""argv → (stage, recipe). The only reader of sys.argv."""

import json
import os
import shlex
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import Debug, Runs, first_process, guarded, recipe_arguments, resumable
from pipeline.config import UserError
from pipeline.converting import converting
from pipeline.looking import looking
from pipeline.publishing import publishing
from pipeline.steering import steering
from pipeline.submitting import submitting

app = typer.Typer(
    help="Take the features of a transformer out of superposition: extract, train, score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(looking)
app.add_typer(steering)
app.add_typer(submitting)
app.add_typer(converting)
app.add_typer(publishing)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe, or the path of a .toml file.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as train.topk.k=64.")]
Name = Annotated[str | None, typer.Option("--name", help="The run folder's name instead of the recipe's.")]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Remake what was made with other settings; the old goes when the new is whole."),
]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda or auto.")]
Workers = Annotated[
    str,
    typer.Option("--worker", metavar="I/N", help="Be process I of N that share the stage, and wait for no other one."),
]
Together = Annotated[
    int | None,
    typer.Option("--together", min=1, help="Dictionaries of a site that share one read, at most; all by default."),
]
Ready = Annotated[bool, typer.Option("--ready", help="Take what is there by now, and leave the rest.")]
Patterns = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="PATTERN", help="These dictionaries alone: SITE/NAME, SITE or NAME, with * and ?."),
]


def _run_stages(
    stages: list[str],
    recipe: str,
    sets: list[str] | None,
    runs: Path,
    name: str | None,
    replace: bool,
    device: str,
    debug: bool,
    only: list[str] | None = None,
    worker: str = "0/1",
    together: int | None = None,
    ready: bool = False,
) -> None:
    def work() -> None:
        from pipeline.only import Only
        from pipeline.sharing import Sharing, Worker
        from pipeline.stages import STAGES, Run, check, limit_threads, load_recipe
        from pipeline.tables import show_scores
        from pipeline.torchrun import choose_device

        limit_threads()
        loaded = load_recipe(recipe, sets, name)
        listing = shlex.join(["unmix", "status", *recipe_arguments(recipe, sets, runs, name)])
        asked = Only(tuple(only or ()), listing)
        sharing = Sharing(Worker.parse(worker), together)
        run = Run(loaded, runs / loaded.name, choose_device(device), replace, asked, sharing, ready)
        if replace and sharing.worker.n > 1:
            raise UserError(
                "--replace with --worker: the workers would remove each other's work; replace with one first"
            )
        if "WORLD_SIZE" in os.environ and stages != ["train"]:
            raise UserError(f"torchrun is for train alone, not {' '.join(stages)}: extract takes --worker I/N")
        if "extract" in stages:
            check(loaded, asked)
        for stage in stages:
            if stage == "extract" and loaded.store and len(stages) > 1:
                continue
            started = time.time()
            did = STAGES[stage](run)
            took = f"{time.time() - started:.1f} s"
            what = f"done in {took}" if did else f"nothing to do, all is there ({took})"
            if first_process():
                print(f"{stage}: {what}, {run.folder / stage}")
            if stage == "score" and sharing.waits:
                show_scores(run.folder / "score" / "scores.json")

    resumable(debug, work)


@app.command()
def run(
    recipe: RecipeName = "demo",
    sets: Sets = None,
    runs: Runs = Path("runs"),
    name: Name = None,
    replace: Replace = False,
    device: Device = "auto",
    only: Patterns = None,
    together: Together = None,
    debug: Debug = False,
) -> None:
    """extract, train and score, one after another."""
    stages = ["extract", "train", "score"]
    _run_stages(stages, recipe, sets, runs, name, replace, device, debug, only, together=together)


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
    _run_stages(["extract"], recipe, sets, runs, name, replace, device, debug, worker=worker)


@app.command()
def train(
    recipe: RecipeName = "demo",
    sets: Sets = None,
    runs: Runs = Path("runs"),
    name: Name = None,
    replace: Replace = False,
    device: Device = "auto",
    only: Patterns = None,
    worker: Workers = "0/1",
    together: Together = None,
    debug: Debug = False,
) -> None:
    """An activation store → feature dictionaries."""
    _run_stages(["train"], recipe, sets, runs, name, replace, device, debug, only, worker, together)


def _stage_command(stage: str, text: str) -> None:
    def command(
        recipe: RecipeName = "demo",
        sets: Sets = None,
        runs: Runs = Path("runs"),
        name: Name = None,
        replace: Replace = False,
        device: Device = "auto",
        only: Patterns = None,
        worker: Workers = "0/1",
        together: Together = None,
        ready: Ready = False,
        debug: Debug = False,
    ) -> None:
        _run_stages([stage], recipe, sets, runs, name, replace, device, debug, only, worker, together, ready)

    app.command(stage, help=text)(command)


_stage_command("score", "Feature dictionaries → scores, a table, pictures.")
_stage_command("report", "Scored feature dictionaries → what is known of each feature, and pages to look at.")


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

    guarded(debug, work)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Of this one, its keys.")] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", metavar="PATH", help="A Python file with methods of your own; repeatable."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, with all keys.")] = False,
    debug: Debug = False,
) -> None:
    """What dictionaries can be made, and the keys of each: meaning, default and source."""

    def work() -> None:
        from pipeline.config import nearest
        from pipeline.tables import show_method, show_methods
        from pipeline.train.described import described
        from pipeline.train.own_methods import methods as all_methods
        from pipeline.train.tasks import KEYS_OF_TRAIN

        known = {name: described(name, method) for name, method in all_methods(files or [], KEYS_OF_TRAIN).items()}
        if name is not None and name not in known:
            raise UserError(f"no method {name!r}{nearest(name, list(known))}")
        if as_json:
            wanted = asdict(known[name]) if name else [asdict(method) for method in known.values()]
            print(json.dumps(wanted, indent=2, ensure_ascii=False))
        elif name:
            show_method(known[name])
        else:
            show_methods(list(known.values()))

    guarded(debug, work)


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

    guarded(debug, work)


@app.command()
def status(
    recipe: RecipeName = "demo",
    sets: Sets = None,
    runs: Runs = Path("runs"),
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON: a list of units.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Look again every few seconds, until ctrl-c.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="Name those that are done or wait, too, not their number.")
    ] = False,
    debug: Debug = False,
) -> None:
    """What is done, who works on what, what failed, what is left."""

    def work() -> None:
        from pipeline import status as of
        from pipeline.stages import Run, load_recipe
        from pipeline.status_table import again, show, show_again

        loaded = load_recipe(recipe, sets, name)
        look = partial(of.status, Run(loaded, runs / loaded.name, "cpu"))
        tell = lambda rows: print(json.dumps(list(map(of.as_json, rows)), indent=None if watch else 2))  # noqa: E731
        if watch:
            again(look, tell) if as_json else show_again(look, every)
        else:
            tell(look()) if as_json else show(look(), every)

    guarded(debug, work)


def main() -> None:
    """The console command."""
    app()


if __name__ == "__main__":
    main()
