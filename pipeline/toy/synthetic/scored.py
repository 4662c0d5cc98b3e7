"""A toy's store and truth in a run folder, in which the ordinary train and score stages have worked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.extract.config import ExtractConfig
from pipeline.score.config import ScoreConfig
from pipeline.score.results import read_histogram
from pipeline.stages import Recipe, Run, run_score, run_train
from pipeline.toy.synthetic.data import HOOK_POINT, Data, write_ica, write_store, write_truth
from pipeline.train.config import TrainConfig
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.manifest import read_json


@dataclass(frozen=True)
class Experiment:
    """Such a run folder, and what is read from it."""

    recipe: Recipe
    folder: Path

    @cached_property
    def scores(self) -> dict[str, Any]:
        return read_json(self.folder / "score" / "scores.json")

    def names(self) -> list[str]:
        return [row["name"] for row in self.scores["dictionaries"] if row["method"] != "truth"]

    def row(self, name: str) -> dict[str, Any]:
        return next(row for row in self.scores["dictionaries"] if row["name"] == name)

    def mmcs(self, name: str) -> tuple[float, float]:
        """Of the truth in the dictionary, and of the dictionary in the truth, as the score stage has them."""
        pairs = {(p["a"], p["b"]): p["mmcs"] for p in self.scores["pairs"]}
        return pairs["truth", name], pairs[name, "truth"]

    def floor(self, name: str) -> float:
        """MMCS of the truth in as many random directions."""
        return next(p["random_floor"] for p in self.scores["pairs"] if (p["a"], p["b"]) == ("truth", name))

    def live(self, name: str) -> Tensor:
        """Directions of a trained dictionary's features that are not dead."""
        density = read_histogram(self.folder / "score" / HOOK_POINT / name).density
        return FeatureDictionary.load(self.folder / "train" / HOOK_POINT / name).directions[density > 0]

    def summary(self, name: str) -> dict[str, Any]:
        row = self.row(name)
        there, back = self.mmcs(name) if row["dead"] < row["d_sae"] else (0.0, 0.0)
        return {"mmcs": there, "mmcs_back": back, "floor": self.floor(name) if there else None} | {
            key: row[key] for key in ("d_sae", "dead", "l0", "fvu")
        }


def stored(data: Data, path: Path) -> ActivationStore:
    """The store of the rows, made if it is not there."""
    return ActivationStore.open(path) if (path / "manifest.json").exists() else write_store(data, path)


def experiment(
    data: Data,
    folder: Path,
    methods: dict[str, list[dict[str, Any]]],
    n_steps: int,
    store: Path | None = None,
    floors: bool = False,
    others: Sequence[Path] = (),
) -> Experiment:
    """Store, truth, train, score: all of them go on where they were stopped. floors: PCA, ICA and random beside; others:
    folders of other dictionaries to be scored."""
    path = store or folder / "activations.zarr"
    stored(data, path)
    truth, others = folder / "truth", list(others)
    if not (truth / "provenance.json").exists():
        write_truth(data, truth)
    if floors:
        methods = {**methods, "pca": [{"n_rows": 20_000}], "random": [{}]}
        others.append(folder / "ica")
        if not (others[-1] / "provenance.json").exists():
            write_ica(data, others[-1])
    recipe = Recipe(
        name=folder.name,
        extract=ExtractConfig(hook_points=(HOOK_POINT,), n_rows=data.config.n_rows),  # not used: the store is there
        train=TrainConfig(batch_size=256, n_tokens=256 * n_steps, methods=methods),
        score=ScoreConfig(dictionaries=(str(truth), *map(str, others)), at_l0=(max(1, round(data.config.k)),)),
        store=str(path),
    )
    run = Run(recipe, folder, "cpu")
    run_train(run)
    run_score(run)
    return Experiment(recipe, folder)
