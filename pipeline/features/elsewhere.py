"""The nearest feature of each other dictionary of a site, by the cosine of their decoder rows."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from torch import Tensor

from pipeline import stopping
from pipeline.features.files import ELSEWHERE, table_key, texts, write_table
from pipeline.score.nearest import Nearest, nearest_both_ways
from pipeline.score.subjects import Subject
from stores.manifest import digest

VERSION = 1
N_DICTIONARIES = 8  # of a feature: those that have the nearest


def write_elsewhere(folder: Path, subjects: Sequence[Subject], device: str) -> None:
    """A table of each dictionary, made again when another joins its site, leaves it or changes. folder: RUN/features."""
    for site, group in groupby(sorted(subjects, key=lambda s: (s.site.name, s.name)), key=lambda s: s.site):
        own = list(group)
        key = digest([VERSION, *([s.name, s.digest, s.basis] for s in own)])
        files = {s.name: folder / ELSEWHERE / site.name / f"{s.name}.parquet" for s in own}
        if len(own) < 2:
            files[own[0].name].unlink(missing_ok=True)
        elif any(table_key(file) != key for file in files.values()):
            for name, found in _found(own, device).items():
                write_table(files[name], _columns(found), key)


def _found(subjects: list[Subject], device: str) -> dict[str, dict[str, Nearest]]:
    """{dictionary: {another: the nearest feature there of each of its own}}."""

    @lru_cache(maxsize=4)
    def directions(i: int) -> tuple[Tensor, bool]:
        dictionary = subjects[i].load(device)
        return dictionary.directions, dictionary.signed

    found: dict[str, dict[str, Nearest]] = {s.name: {} for s in subjects}
    for i, j in combinations(range(len(subjects)), 2):
        stopping.look("all is described")
        (a, a_signed), (b, b_signed) = directions(i), directions(j)
        there, back = nearest_both_ways(a, b, signed=a_signed or b_signed)
        found[subjects[i].name][subjects[j].name] = there
        found[subjects[j].name][subjects[i].name] = back
    return found


def _columns(found: dict[str, Nearest]) -> dict[str, np.ndarray | pa.Array]:
    names = np.array(list(found))
    cosines = np.concatenate([near.cosines.cpu().numpy() for near in found.values()], axis=1)
    features = np.concatenate([near.indices.cpu().numpy() for near in found.values()], axis=1).astype(np.int32)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :N_DICTIONARIES]
    n, width = order.shape
    offsets = np.arange(0, n * width + 1, width, dtype=np.int32)
    return {
        "elsewhere_dictionary": pa.ListArray.from_arrays(pa.array(offsets), texts(names[order].ravel().tolist())),
        "elsewhere_feature": np.take_along_axis(features, order, 1),
        "elsewhere_cosine": np.take_along_axis(cosines, order, 1),
    }
