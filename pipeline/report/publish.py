"""A scored run as a folder for the hub: dictionaries that SAELens reads, a model card, scores, pictures, the export."""

import os
import re
import shlex
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.only import Only
from pipeline.report.artefacts import Run, read_run
from pipeline.report.card import REPO, Published, card
from pipeline.score.subjects import subjects_of
from pipeline.unit_files import json_object, recorded_files, size_of
from stores.dictionary import FeatureDictionary
from stores.dictionary_files import CONFIG, PROVENANCE, WEIGHTS
from stores.formats.found import read_spec
from stores.formats.stated import Stated
from stores.hub import CARD
from stores.manifest import bytes_digest, commit_bytes, commit_json, digest, file_digest
from stores.model_card import files as dictionary_files

FOLDER, RECORD = "publish", "published.json"  # RECORD, written last: what unmix made of it, and for which repository
_VERSION = 1
_FILES = (CONFIG, WEIGHTS, PROVENANCE)


@dataclass(frozen=True)
class Publication:
    """What is published of a run. copies: path in the folder → file of the run."""

    run: Run
    dictionaries: list[Published]
    copies: dict[str, Path]
    license: str

    @property
    def folder(self) -> Path:
        return self.run.folder / FOLDER

    @cached_property
    def card(self) -> str:
        pictures = [name for name in self.copies if name.startswith("pictures/")]
        others = ["`SITE/NAME/`: a dictionary, `cfg.json`, `sae_weights.safetensors`, `provenance.json`"]
        others += ["`scores.json`: the scores of all dictionaries of the run, with the meaning of every column"]
        if any(name.startswith("export/") for name in self.copies):
            others += [
                "`export/`: tables of features as parquet and CSV, and the JSON of attribution viewers and of Neuronpedia"
            ]
        return card(self.run, self.dictionaries, pictures, others, self.license)

    @property
    def n_files(self) -> int:
        return len(_FILES) * len(self.dictionaries) + len(self.copies) + 1

    @property
    def n_bytes(self) -> int:
        """About: JSON and the card are written anew."""
        own = [one.folder / name for one in self.dictionaries for name in _FILES]
        return sum(path.stat().st_size for path in (*self.copies.values(), *own)) + len(self.card.encode())

    @cached_property
    def key(self) -> str:
        """Of all that the folder follows from."""
        copies = {name: file_digest(path) for name, path in self.copies.items()}
        return digest([_VERSION, self.card, {one.place: one.digest for one in self.dictionaries}, copies])

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Path in the folder, and what lies there. One dictionary is in memory at a time.

        Raises ValueError: a dictionary is damaged.
        """
        for one in self.dictionaries:
            found = FeatureDictionary.load(one.folder)
            for name, data in dictionary_files(found.spec, found.weights):
                yield f"{one.place}/{name}", data
        for name, path in self.copies.items():
            yield name, path.read_bytes()
        yield CARD, self.card.encode()


def publication(run_folder: Path, only: tuple[str, ...] = (), license: str = "mit") -> Publication:
    """Raises UserError: the run is not scored, or a dictionary that is asked for is not."""
    run = read_run(run_folder)
    dictionaries = _chosen(run, Only(only, f"ls -d {shlex.quote(str(run_folder))}/train/*/*"))
    sites = dict.fromkeys(site for one in dictionaries for site in (row["site"] for row in one.rows))
    copies = {"scores.json": run.folder / "score" / "scores.json"}
    for site in sites:
        for picture in sorted((run.folder / "score" / site).glob("*.png")):
            copies[f"pictures/{site}/{picture.name}"] = picture
    export = run.report / "export"
    places = [export / "tables", *(export / row["site"] / row["name"] for one in dictionaries for row in one.rows)]
    for place in places:
        for file in sorted(path for path in place.rglob("*") if path.is_file() and not path.is_symlink()):
            copies[f"export/{file.relative_to(export).as_posix()}"] = file
    return Publication(run, dictionaries, copies, license)


def _chosen(run: Run, only: Only) -> list[Published]:
    folders = {f"{p.parent.parent.name}/{p.parent.name}": p.parent for p in run.folder.glob("train/*/*/plan.json")}
    only.check(folders.keys())
    order = {(row["site"], row["name"]): i for i, row in enumerate(run.scores["dictionaries"])}
    found = [_published(run, place, folder) for place, folder in sorted(folders.items()) if only.has(place)]
    if not found:
        raise UserError(
            f"{run.folder / 'train'} holds no dictionary: run `unmix train` on the recipe of {run.folder} first"
        )
    return sorted(found, key=lambda one: order[one.rows[0]["site"], one.rows[0]["name"]])


def _published(run: Run, place: str, folder: Path) -> Published:
    """Raises UserError: it is not trained to its end, not scored, or made again since."""
    leave_out = "or leave it out with --only"
    if recorded_files(json_object(folder / "manifest.json")) is None:
        raise UserError(f"{place} is not trained to its end: run `unmix train` with its recipe first, {leave_out}")
    try:
        spec = read_spec(folder, Stated())
        subjects = subjects_of(folder, folder.name, "", {}, vouched=True)
    except (ValueError, OSError) as error:
        raise UserError(f"{error}: run `unmix verify {shlex.quote(str(folder))}`") from None
    rows = {(row["site"], row["name"]): row for row in run.scores["dictionaries"]}
    scored = [subject for subject in subjects if (subject.site.name, subject.name) in rows]
    if not scored:
        raise UserError(f"{place} has no scores yet: run `unmix score` with its recipe first, {leave_out}")
    for subject in scored:
        plan = json_object(run.folder / "score" / subject.site.name / subject.name / "plan.json") or {}
        if (plan.get("inputs") or {}).get("dictionary_digest") != subject.digest:
            raise UserError(f"{place} was made again since it was scored: run `unmix score` with its recipe first")
    return Published(place, folder, spec, [rows[s.site.name, s.name] for s in scored], scored[0].digest)


def write(what: Publication) -> bool:
    """Make the folder, or leave it where it is that already, with what was changed in it by hand. Returns whether it was made.

    Raises UserError: something lies in its place that unmix did not make, or that was changed by hand and would be lost.
    """
    target = what.folder
    old = _found(target)
    if old is not None and old["key"] == what.key and all(size_of(target / name) is not None for name in old["files"]):
        return False
    if old is not None and (changed := _changed(target, old["files"])):
        raise UserError(
            f"{target / changed} was changed by hand, which would be lost: run "
            f"`mv {shlex.quote(str(target))} {shlex.quote(str(target))}.aside` first"
        )
    making = target.with_name(f".{FOLDER}.{uuid.uuid4().hex}.partial")
    files = {}
    try:
        for name, data in what.files():
            commit_bytes(making / name, data)
            files[name] = [len(data), bytes_digest(data)]
        commit_json(making / RECORD, {"key": what.key, "repo": REPO, "files": files})
        if target.exists():
            aside = target.with_name(f".{FOLDER}.{uuid.uuid4().hex}.replaced")
            target.rename(aside)
            shutil.rmtree(aside)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return True


def name_repository(folder: Path, repo: str) -> None:
    """Write the repository's name into the card, where its name is not known yet or was another one. A longer name that
    holds it, such as a data set's, stays."""
    record, path = _found(folder), folder / CARD
    assert record is not None
    text = path.read_text()
    old = re.escape(record["repo"])
    data = re.sub(rf"(?<![\w./-]){old}(?![\w/-]|\.\w)", repo, text).encode()
    if record["files"][CARD][1] == bytes_digest(text.encode()):
        record["files"][CARD] = [len(data), bytes_digest(data)]
    commit_bytes(path, data)
    commit_json(folder / RECORD, {**record, "repo": repo})


def _found(target: Path) -> dict[str, Any] | None:
    """The record of a folder that unmix made; None: there is no folder. Raises UserError: another thing is in its place."""
    if not os.path.lexists(target):
        return None
    found = None if target.is_symlink() else json_object(target / RECORD)
    if found is None or recorded_files(found) is None or not {"key", "repo"} <= found.keys():
        quoted = shlex.quote(str(target))
        raise UserError(
            f"{target} is there without {RECORD}, so unmix did not make it: run `mv {quoted} {quoted}.aside` first"
        )
    return found


def _changed(target: Path, files: dict[str, Any]) -> str | None:
    """A file that is not as it was written, or that was put there."""
    for path in sorted(path for path in target.rglob("*") if not path.is_dir() or path.is_symlink()):
        name = path.relative_to(target).as_posix()
        if name != RECORD and (name not in files or file_digest(path) != files[name][1]):
            return name
    return None
