"""The command that starts the stages elsewhere: submit."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.command import Debug, Runs, guarded, recipe_arguments
from pipeline.config import UserError, nearest

submitting = typer.Typer()


def _flag(name: str, text: str) -> typer.models.OptionInfo:
    return typer.Option(name, help=f"{text}, for every stage, instead of the recipe's table cluster.")


@submitting.command()
def submit(
    context: typer.Context,
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe, or the path of a .toml file.")],
    stages: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE]...", help="extract, train, score, report; all by default."),
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override, as train.topk.k=64.")
    ] = None,
    runs: Runs = Path("runs"),
    name: Annotated[str | None, typer.Option("--name", help="The run folder's name instead of the recipe's.")] = None,
    cluster: Annotated[
        Literal["slurm", "local", "debug"],
        typer.Option(
            "--cluster", help="slurm; local: processes of this machine; debug: one after another in this one."
        ),
    ] = "slurm",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print jobs, dependencies and commands; start nothing.")
    ] = False,
    scores_while_training: Annotated[
        bool,
        typer.Option(
            "--scores-while-training", help="Jobs of each site; one is scored when its last dictionary is done."
        ),
    ] = False,
    partition: Annotated[str | None, _flag("--partition", "Slurm's partition")] = None,
    account: Annotated[str | None, _flag("--account", "Slurm's account")] = None,
    minutes: Annotated[int | None, _flag("--time", "Minutes of a job")] = None,
    memory: Annotated[str | None, _flag("--memory", "Memory of a node, as 32G")] = None,
    cpus: Annotated[int | None, _flag("--cpus", "CPUs of a task")] = None,
    gpus: Annotated[int | None, _flag("--gpus", "GPUs of a task")] = None,
    width: Annotated[int | None, _flag("--width", "Tasks of an array at most")] = None,
    at_a_time: Annotated[int | None, _flag("--at-a-time", "Tasks of an array that run at once")] = None,
    together: Annotated[int | None, _flag("--together", "Dictionaries of a site that share one read, at most")] = None,
    debug: Debug = False,
) -> None:
    """Run what is left of the stages as jobs of a cluster, each after what it needs. Again: what is left by then."""

    def call(arguments: list[str]) -> int:
        return context.find_root().command.main(arguments, "unmix", standalone_mode=False) or 0

    def work() -> None:
        from pipeline.cluster.submit import submit as start
        from pipeline.sharing import Sharing
        from pipeline.stages import STAGES, Run, load_recipe

        loaded = load_recipe(recipe, sets, name)
        flags = {"partition": partition, "account": account, "time": minutes, "memory": memory, "cpus": cpus,
                 "gpus": gpus, "width": width, "at_a_time": at_a_time, "together": together}  # fmt: skip
        config = loaded.cluster.overridden(flags)
        loaded = loaded.model_copy(update={"cluster": config})
        run = Run(loaded, runs / loaded.name, "cpu", sharing=Sharing(together=config.together))
        options = recipe_arguments(recipe, sets, runs, name)
        asked = stages or list(STAGES)
        if unknown := [stage for stage in asked if stage not in STAGES]:
            raise UserError(f"no stage {unknown[0]!r}{nearest(unknown[0], list(STAGES))}")
        start(run, options, asked, cluster, dry_run, scores_while_training, call)

    guarded(debug, work)
