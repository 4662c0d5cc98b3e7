"""Two dictionaries beside each other, wherever they come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.config import UserError
from pipeline.estimates import unpaired
from pipeline.score.between import of_one_space
from pipeline.score.nearest import Nearest, nearest_both_ways
from pipeline.score.results import read_histogram, read_row
from pipeline.score.similarity import ways_of
from pipeline.score.spread import BETTER, COUNTS, member_values
from pipeline.unit_files import json_object
from stores.dictionary import FeatureDictionary
from stores.dictionary_files import CONFIG
from stores.formats.found import is_dictionary, path_digest
from stores.interchange import architecture_name

NONE_BELOW = 0.5  # a feature whose largest cosine is less has none like it
_MOST_ALIKE = 10


@dataclass(frozen=True)
class Side:
    """One of the two. alive: indices of the features that count: those that are active somewhere where a score lies beside
    the dictionary, else those that write anything. row: its row of the score, {} without one. seeds: of each score its values
    over the dictionary's seeds, {} without a run's table of scores."""

    path: str
    dictionary: FeatureDictionary
    alive: Tensor
    row: dict[str, Any]
    seeds: dict[str, list[float]]

    @property
    def directions(self) -> Float[Tensor, "n_alive d_out"]:
        return self.dictionary.directions[self.alive]

    def summary(self) -> dict[str, Any]:
        f = self.dictionary
        return {
            "path": self.path,
            "architecture": architecture_name(f.spec),
            "site": f.site.name,
            "d_in": f.d_in,
            "d_out": f.d_out,
            "d_sae": f.d_sae,
            "n_compared": len(self.alive),
            "signed": f.signed,
            **{key: self.row[key] for key in ("l0", "fvu") if key in self.row},
        }


def located(path: str, runs: Path) -> Path | None:
    """Where the dictionary lies that a path or RUN/SITE/NAME names; None: there is none."""
    return next((place for place in _places(path, runs) if (place / CONFIG).exists() or is_dictionary(place)), None)


def _places(path: str, runs: Path) -> list[Path]:
    run, *rest = Path(path).parts or ("",)
    return [Path(path), *([runs / run / "train" / Path(*rest)] if len(rest) == 2 else [])]


def side(path: str, runs: Path) -> Side:
    """path: a dictionary's folder, or RUN/SITE/NAME. Raises UserError: there is none, it cannot be read, or all its features
    are dead."""
    folder = located(path, runs)
    if folder is None:
        raise UserError(
            f"no dictionary at {' or '.join(map(str, _places(path, runs)))}: give a folder with {CONFIG} in it, or "
            f"RUN/SITE/NAME as in {_example(runs)}"
        )
    try:
        dictionary = FeatureDictionary.load(folder, mmap=False)
    except ValueError as error:
        raise UserError(str(error)) from None
    row, alive = _scored(folder)
    if alive is None:
        alive = dictionary.W_dec.any(1)
    if not alive.any():
        raise UserError(
            f"{path}: all {dictionary.d_sae} features are dead, there is nothing to compare: train it longer"
        )
    seeds = seeds_of(folder.resolve().parents[2] / "score" / "scores.json", row["site"], row["name"]) if row else {}
    return Side(path, dictionary, alive.nonzero().squeeze(1), row, seeds)


def seeds_of(path: Path, site: str, name: str) -> dict[str, list[float]]:
    """path: of a run's scores.json."""
    scores = json_object(path) or {}
    group = next((g for g in scores.get("groups", []) if g["site"] == site and name in g["names"]), None)
    return {score: values for score in BETTER if group and (values := member_values(scores, group, score))}


def _example(runs: Path) -> str:
    """A path that can be given."""
    found = next(iter(sorted(runs.glob(f"*/train/*/*/{CONFIG}"))), None)
    run, _, site, name = found.parent.relative_to(runs).parts if found else ("demo", "", "SITE", "topk-d768-k32-s0")
    return f"{run}/{site}/{name}"


def _scored(folder: Path) -> tuple[dict[str, Any], Tensor | None]:
    """The row and which features are active, if the score of a run lies beside, and is of these very files."""
    folder = folder.resolve()
    if len(folder.parents) < 3 or folder.parents[1].name != "train":
        return {}, None
    score = folder.parents[2] / "score" / folder.parent.name / folder.name
    inputs = (json_object(score / "plan.json") or {}).get("inputs")
    if not isinstance(inputs, dict) or inputs.get("dictionary_digest") != path_digest(folder):
        return {}, None
    if not (score / "manifest.json").exists():  # it is being made
        return {}, None
    return read_row(score, folder.name), read_histogram(score).density > 0


def compare(a: Side, b: Side) -> dict[str, Any]:
    """What `unmix compare --json` prints. Raises UserError: they write other widths."""
    if a.dictionary.d_out != b.dictionary.d_out:
        raise UserError(
            f"{a.path} writes d_out = {a.dictionary.d_out} ({a.dictionary.site.name or 'site unknown'}), {b.path} writes "
            f"d_out = {b.dictionary.d_out} ({b.dictionary.site.name or 'site unknown'}): compare dictionaries of one width"
        )
    signed = a.dictionary.signed or b.dictionary.signed
    x, y = a.directions, b.directions
    found = nearest_both_ways(x, y, signed=signed)
    ways = ways_of(x, y, *found, signed=signed)
    result: dict[str, Any] = {"a": a.summary(), "b": b.summary(), "signed": signed, "warning": None}
    written = a.dictionary.site.writes, b.dictionary.site.writes
    if not of_one_space(*written):
        places = " and ".join(" + ".join(names) for names in written)
        result["warning"] = f"{places} have axes of their own: cosines between them are as good as chance"
    for name, way, there, one, other in zip(("a_in_b", "b_in_a"), ways, found, (a, b), (b, a), strict=True):
        result[name] = {
            "mmcs": way.mmcs,
            "random_floor": way.random_floor,
            "fraction_above_0.9": way.above,
            "most_alike": _most_alike(there, one, other),
            "without": one.alive[there.cosines[:, 0] < NONE_BELOW].tolist(),
            "histogram": list(way.histogram),
        }
    result["matched_cosine"] = ways[0].matched_cosine
    same_site = a.row.get("site") == b.row.get("site")
    result["over_seeds"] = {
        score: _apart(a.seeds[score], b.seeds[score], score)
        for score in BETTER
        if same_site and score in a.seeds and score in b.seeds
    }
    return result


def _apart(a: list[float], b: list[float], score: str) -> dict[str, Any]:
    """difference: by how much a is better, low to high Welch's 95% interval, null where a side is one seed."""
    x, y = ([BETTER[score] * value for value in side] for side in (a, b))
    found = unpaired(x, y, counts=score in COUNTS)
    known = min(len(a), len(b)) > 1
    ends = {"low": found.low if known else None, "high": found.high if known else None}
    return {"a": a, "b": b, "difference": found.value, **ends, "apart": known and (found.low > 0 or found.high < 0)}


def _most_alike(found: Nearest, one: Side, other: Side) -> list[dict[str, Any]]:
    cosines, indices = found.cosines[:, 0], found.indices[:, 0]
    order = torch.sort(cosines, descending=True, stable=True).indices[:_MOST_ALIKE]
    return [
        {"feature": int(one.alive[i]), "nearest": int(other.alive[indices[i]]), "cosine": float(cosines[i])}
        for i in order.tolist()
    ]
