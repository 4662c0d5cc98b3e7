"""One pass over the held-out rows of a site, for the measures of all its dictionaries; a killed one goes on.

The rows are divided into parts that depend on the store and on n_rows alone. What each part adds to a measure is kept in the
unit's folder as soon as the part is read, and parts are merged in their order.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline import stopping
from pipeline.progress import progress
from pipeline.score.arrays import commit_arrays, read_arrays
from pipeline.score.measures import Measure, Rows
from pipeline.score.reconstruction import Target
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site

N_PARTS = 16  # at most: a part leaves a file of some kilobytes, or 16 MB for 24,576 features
PARTS, _OWNER = "checkpoints", "owner"
Measures = dict[str, Measure]
Pieces = list[tuple[int, int]]


class Parts(NamedTuple):
    """The parts of one dictionary. key: of its unit, which each part carries, so that no other's is taken for it."""

    folder: Path
    key: str

    def file(self, i: int) -> Path:
        return self.folder / PARTS / f"part-{i:02d}.npz"

    def save(self, i: int, measures: Measures) -> None:
        states = {f"{name}/{key}": array for name, one in measures.items() for key, array in one.state().items()}
        commit_arrays(self.file(i), {_OWNER: np.array(f"{self.key} {i}"), **states})

    def load(self, i: int, measures: Measures) -> bool:
        """Whether this part was there, whole."""
        arrays = read_arrays(self.file(i))
        if arrays is None or str(arrays.get(_OWNER)) != f"{self.key} {i}":
            return False
        for name, one in measures.items():
            one.load({key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")})
        return True


@torch.inference_mode()
def measure(
    store: ActivationStore,
    site: Site,
    n_rows: int,
    batch_size: int,
    dictionaries: Mapping[str, FeatureDictionary],
    begin: Callable[[str], Measures],
    parts: Mapping[str, Parts],
    device: str,
) -> dict[str, Measures]:
    """The measures of each dictionary of a site. begin: those of one, by its name, before any row. parts:
    where each one keeps its own."""
    groups = parts_of(store.heldout_pieces(n_rows))
    means = {h: torch.from_numpy(store.stats(h).mean) for h in site.writes}
    found = {name: begin(name) for name in dictionaries}
    total = sum(stop - start for pieces in groups for start, stop in pieces)
    with progress(total=total, unit="row", desc=f"score {len(dictionaries)} at {site.name}") as bar:
        for i, pieces in enumerate(groups):
            part = {name: begin(name) for name in dictionaries}
            missing = [name for name in dictionaries if not parts[name].load(i, part[name])]
            for _, values in batches(store, site, pieces, batch_size, device) if missing else ():
                targets = {h: Target(values[h], mean) for h, mean in means.items()}
                for name in missing:
                    rows = Rows.of(dictionaries[name], site, values, targets)
                    for one in part[name].values():
                        one.add(rows)
            for name in missing:
                parts[name].save(i, part[name])
            stopping.look(f"{i + 1} of {len(groups)} parts of the rows are scored at {site.name}")
            for name, measures in found.items():
                for key, one in measures.items():
                    one.merge(part[name][key])
            bar.update(sum(stop - start for start, stop in pieces))
    return found


def parts_of(pieces: Pieces) -> list[Pieces]:
    """At most N_PARTS, of as many pieces each, but the last."""
    size = -(-len(pieces) // N_PARTS)
    return [pieces[i : i + size] for i in range(0, len(pieces), size)]


def batches(
    store: ActivationStore, site: Site, pieces: Pieces, batch_size: int, device: str
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """(the first held-out row, the same rows at every hook point of the site); no more than a piece of each is held."""
    names, chunks = tuple(dict.fromkeys(site.reads + site.writes)), store.description.chunks("heldout")
    for start, stop in pieces:
        store.have(names, int(chunks[start // store.chunk_rows]))  # a piece is of one chunk
        piece = {h: store.rows(h, start, stop, "heldout") for h in names}
        for i in range(0, stop - start, batch_size):
            rows = {h: torch.from_numpy(own[i : i + batch_size]).to(device).float() for h, own in piece.items()}
            yield start + i, rows
