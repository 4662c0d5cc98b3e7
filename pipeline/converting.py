"""The command that writes dictionaries as other libraries read them: convert."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.command import Debug, guarded
from pipeline.config import UserError

converting = typer.Typer()


@converting.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A dictionary, whosever, or a folder of several.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="A folder that is not there yet.")],
    to: Annotated[
        Literal["saelens", "sparsify", "dictionary_learning", "circuit-tracer"],
        typer.Option("--to", help="The library."),
    ],
    hook_point: Annotated[
        str,
        typer.Option(
            "--hook-point", help="Where SRC does not say it; of a transcoder READS--WRITES; {layer}: as its path says."
        ),
    ] = "",
    apply_b_dec_to_input: Annotated[
        bool | None,
        typer.Option(
            "--apply-b-dec-to-input/--no-apply-b-dec-to-input",
            help="Whether b_dec is subtracted from what is encoded, where SRC does not say it.",
        ),
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", min=1, help="Of a TopK dictionary, where SRC does not say it.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a dictionary as another library reads it."""

    def work() -> None:
        from stores.convert import convert as write
        from stores.formats.stated import Stated

        try:
            found = write(source, target, to, Stated(hook_point, apply_b_dec_to_input, k))
        except ValueError as error:
            raise UserError(str(error)) from None
        print(f"convert: {len(found)} {'dictionary' if len(found) == 1 else 'dictionaries'} for {to}, {target}")

    guarded(debug, work)
