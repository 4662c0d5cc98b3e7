"""toy: small experiments where the truth is known → numbers, pictures, a page each, and an index of them.

    runs/toy/<toy>/<part>.json     the numbers of one part, written when it is done: a killed toy goes on after it
    runs/toy/<toy>/index.html      the page, with its pictures; beside it the pictures as files
    runs/toy/<toy>/findings.json   the sources' claims, what the numbers say, and the verdicts
    runs/toy/index.html            all toys, and a table of all claims

With --quick everything lies in runs/toy-quick.
"""

import importlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from pipeline.claims import Claims
from pipeline.config import Config, UserError, settings_json, validated
from pipeline.progress import progress
from pipeline.recipe import set_value
from pipeline.toy.findings import Claim, decide
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores.cpus import cpus_here
from stores.manifest import commit_json, read_json

VERSION = 8

# name → what it shows. A line here and a folder of the name, with _ for -, make one more: experiment.py is a Toy, claims.py
# has CLAIMS, page.py has page. The longest come first: they are started first.
TOYS = {
    "synthetic": "dictionaries learned on known features in superposition: when are they found again?",
    "superposition": "toy models of superposition: how many features fit, and in what geometry",
    "polytopes": "the affine pieces of a network: where their boundaries lie, what moves with them",
    "known-layer": "a hand-made layer in superposition: which methods find its features, and when superposition pays",
    "mnist-rotation": "rotations of a small net's layers in which its Jacobians are local: what they find, what they do not",
    "representations": "what it means that features are directions, and what a code without directions looks like",
    "embedding-basis": "singular vectors of a model's embedding as axes of its residual stream: sparser weights? of what?",
    "functions": "how small networks compute x < 10, min(a, b) and parity",
    "tokens": "eight tokens, four features: how fragile the reading of a small autoencoder is",
}

FINDINGS = "findings.json"

Numbers = dict[str, Any]


class Toy(Protocol):
    """What the experiment.py of a toy has.

    Settings and QUICK, what --quick changes of them. inputs: digests of what it reads; raises UserError when that does
    not fit. parts: what is measured, each a function of settings and folder alone.
    """

    Settings: type[Config]
    QUICK: dict[str, Any]

    def inputs(self, settings: Any) -> dict[str, Any]: ...
    def parts(self, settings: Any, folder: Path) -> dict[str, Callable[[], Numbers]]: ...


def module(name: str) -> Toy:
    """Raises UserError: there is no such toy."""
    if name not in TOYS:
        raise UserError(f"unknown toy {name!r}, known are: {', '.join(TOYS)}")
    return cast(Toy, _file_of(name, "experiment"))


def claims(name: str) -> Sequence[Claim]:
    """What the toy's sources say."""
    return _file_of(name, "claims").CLAIMS


def page_of(name: str, numbers: Mapping[str, Numbers]) -> Any:
    """The toy's page, from the numbers of all its parts; findings are added when it is written."""
    return _file_of(name, "page").page(numbers)


def _file_of(name: str, file: str) -> Any:
    return importlib.import_module(f"pipeline.toy.{name.replace('-', '_')}.{file}")


def settings_of(names: Sequence[str], sets: Sequence[str], quick: bool) -> dict[str, Config]:
    """The settings of each toy. sets: TOY.KEY=VALUE. Raises UserError."""
    toys = {name: module(name) for name in names}
    values: dict[str, Any] = {name: dict(toy.QUICK) if quick else {} for name, toy in toys.items()}
    for item in sets:
        name, _, rest = item.partition(".")
        if not rest or name not in values:
            raise UserError(f"--set {item}: expected TOY.KEY=VALUE, TOY one of {', '.join(values)}")
        set_value(values[name], rest)
    return {name: validated(toys[name].Settings, values[name], name) for name in names}


def run(names: Sequence[str], runs: Path, sets: Sequence[str] = (), quick: bool = False, replace: bool = False) -> bool:
    """Run the toys, all by default. Returns whether there was anything to do. Raises UserError before it writes."""
    names = list(dict.fromkeys(names)) or list(TOYS)
    names.sort(key=lambda name: list(TOYS).index(name) if name in TOYS else 0)
    folder = runs / ("toy-quick" if quick else "toy")
    work = []
    for name, settings in settings_of(names, sets, quick).items():
        inputs = module(name).inputs(settings)
        work.append((settings, Unit("toy", name, folder / name, VERSION, settings_json(settings), inputs)))
    did = False
    with Claims(folder) as claims:
        for units in claims.rounds([[unit for _, unit in work]], replace):
            did = did or bool(units)
            _execute([(settings, unit) for settings, unit in work if unit in units])
    _index(folder)
    return did


def _execute(work: list[tuple[Config, Unit]]) -> None:
    """The parts that are not there, in one process a core, of one thread: the matrices are small, and the bits do not
    depend on the number of cores."""
    if not work:
        return
    started = time.time()
    tasks: list[tuple[Config, Unit, str]] = []
    for settings, unit in work:
        missing = [part for part in _parts(settings, unit) if json_object(unit.folder / f"{part}.json") is None]
        tasks += [(settings, unit, part) for part in missing]
        if not missing:
            _finish(settings, unit, started, {})
    took: dict[str, dict[str, float]] = {unit.name: {} for _, unit in work}  # seconds by part
    left = Counter(unit.name for _, unit, _ in tasks)
    # fork would copy locks that other threads of this process hold
    n_workers = max(1, min(len(tasks), cpus_here()))
    with ProcessPoolExecutor(n_workers, get_context("spawn"), initializer=_one_thread) as pool:
        futures = {pool.submit(measure, *task): task for task in tasks}
        try:
            for future in progress(as_completed(futures), total=len(tasks), desc="toy", unit="part", unit_scale=False):
                settings, unit, part = futures[future]
                took[unit.name][f"{part}_s"] = future.result()
                left[unit.name] -= 1
                if not left[unit.name]:
                    _finish(settings, unit, started, took[unit.name])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _parts(settings: Config, unit: Unit) -> dict[str, Callable[[], Numbers]]:
    return module(unit.name).parts(settings, unit.folder)


def _finish(settings: Config, unit: Unit, started: float, took: dict[str, float]) -> None:
    """The page of a toy whose parts are all there."""
    from pipeline.toy import page

    numbers = {part: read_json(unit.folder / f"{part}.json") for part in _parts(settings, unit)}
    foot = f"Numbers: {', '.join(f'{part}.json' for part in numbers)} beside this page. Key {unit.key[:12]}."
    findings = decide(claims(unit.name), numbers)
    commit_json(unit.folder / FINDINGS, {"findings": [finding.values() for finding in findings]})
    page.write(unit.folder, partial(page_of, unit.name, numbers), findings, foot)
    unit.finish("cpu", time.time() - started, took)


def _one_thread() -> None:
    torch.set_num_threads(1)


def measure(settings: Config, unit: Unit, part: str) -> float:
    """One part of a toy. Returns how long it took, in seconds."""
    started = time.time()
    commit_json(unit.folder / f"{part}.json", _parts(settings, unit)[part]())
    return round(time.time() - started, 1)


def _index(folder: Path) -> None:
    from pipeline.toy import page

    found = {name: json_object(folder / name / FINDINGS) for name in TOYS if (folder / name / "manifest.json").exists()}
    page.write_index(
        folder, TOYS, {name: values["findings"] for name, values in found.items() if values and "findings" in values}
    )
