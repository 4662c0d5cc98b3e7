"""Commands that look at what is there: compare, feature, export."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import Debug, Runs, guarded

looking = typer.Typer()


@looking.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A dictionary, RUN/SITE/NAME, or a folder of several.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one that writes the same width.")],
    runs: Runs = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="All that is found as JSON; of folders a list.")] = False,
    debug: Debug = False,
) -> None:
    """Do two dictionaries have the same features? MMCS both ways, what is most alike, what is in one alone."""

    def work() -> None:
        from pipeline.score.comparison import compare as found_of
        from pipeline.score.comparison import side
        from pipeline.score.folders import pairs_of
        from pipeline.tables import show_comparison, show_comparisons

        several = pairs_of(a, b, runs)
        found = [found_of(side(one, runs), side(other, runs)) for one, other in several or [(a, b)]]
        if as_json:
            print(json.dumps(found if several else found[0], indent=2, ensure_ascii=False))
        elif several:
            show_comparisons(found)
        else:
            show_comparison(found[0])

    guarded(debug, work)


@looking.command()
def feature(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `unmix report` has described.")],
    dictionary: Annotated[str, typer.Argument(metavar="DICTIONARY", help="SITE/NAME, or NAME.")],
    index: Annotated[int, typer.Argument(metavar="INDEX", help="The feature's number.")],
    page: Annotated[bool, typer.Option("--page", help="Open its page in the browser.")] = False,
    debug: Debug = False,
) -> None:
    """One feature: where it is active, what it promotes, its label and rule."""

    def work() -> None:
        from pipeline.report.one import one_feature
        from pipeline.tables import show_feature

        found = one_feature(run, dictionary, index)
        if page:
            typer.launch(found.page)
        else:
            show_feature(found)

    guarded(debug, work)


@looking.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `unmix report` has described.")],
    model: Annotated[str, typer.Option("--model", help="The name that Neuronpedia has for the model.")] = "model",
    debug: Debug = False,
) -> None:
    """All tables as parquet and CSV, features as attribution viewers and Neuronpedia's upload read them."""

    def work() -> None:
        from pipeline.report.export import write_export

        print(write_export(run, model))

    guarded(debug, work)
