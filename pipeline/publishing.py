"""The command that makes a run ready for the hub, and uploads it: publish."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.command import Debug, guarded
from pipeline.config import UserError

publishing = typer.Typer()


@publishing.command()
def publish(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `unmix score` has scored.")],
    repo: Annotated[
        str | None, typer.Option("--repo", metavar="OWNER/NAME", help="Upload to this repository of the hub.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="PATTERN", help="These dictionaries alone: SITE/NAME, SITE or NAME, with * and ?."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is new.")] = False,
    license: Annotated[str, typer.Option("--license", help="What the card says: an identifier of the hub's.")] = "mit",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be written and uploaded, and do neither.")
    ] = False,
    debug: Debug = False,
) -> None:
    """A scored run → a folder for the Hugging Face hub: dictionaries, a model card, scores, pictures; and its upload."""

    def work() -> None:
        from pipeline.report.publish import RECORD, name_repository, publication, write
        from stores import hub

        if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
            raise UserError(
                f"--license {license!r}: expected an identifier of the hub's, such as mit, apache-2.0, cc-by-4.0"
            )
        try:
            if repo is not None:
                hub.check_repo(repo)
            what = publication(run, tuple(only or ()), license)
            size = f"{len(what.dictionaries)} dictionaries, {what.n_files} files, {what.n_bytes / 1e6:.1f} MB"
            if dry_run:
                for one in what.dictionaries:
                    print(one.place)
                print(f"publish: would write {what.folder}: {size}, licence {license}")
                if repo:
                    print(f"publish: would upload it to {hub.page(repo)}{', private' * private}")
                return
            made = write(what)
            print(f"publish: {size}, licence {license}{'' if made else ', as it was'}: {what.folder}")
            if repo is None:
                command = ["unmix", "publish", str(run), *(part for one in only or [] for part in ("--only", one))]
                command += ["--license", license] * (license != "mit")
                print(
                    f"look at {what.folder / hub.CARD}, then upload: {shlex.join([*command, '--repo', 'OWNER/NAME'])}"
                )
                return
            name_repository(what.folder, repo)
            message = f"{len(what.dictionaries)} dictionaries of {what.run.folder.resolve().name}"
            commit = hub.upload(what.folder, repo, message, private=private or None, without=[RECORD])
            print(f"publish: {commit}")
        except ValueError as error:
            raise UserError(str(error)) from error

    guarded(debug, work)
