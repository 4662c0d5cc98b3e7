"""One pass over the held-out rows of a site, for the measures of all its dictionaries; a killed one goes on.

The rows are divided into parts that depend on the store and on n_rows alone. What each part adds to a measure is kept in the
unit's folder as soon as the part is read, and parts are merged in their order.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.progress import progress
from pipeline.score.arrays import commit_arrays, read_arrays
from pipeline.score.measures import Measure, Rows
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site

N_PARTS = 16  # at most: a part leaves a file of some kilobytes, or 16 MB for 24,576 features
PARTS = "checkpoints"
Measures = dict[str, Measure]
Pieces = list[tuple[int, int]]


@torch.no_grad()
def measure(
    store: ActivationStore,
    site: Site,
    n_rows: int,
    batch_size: int,
    dictionaries: Mapping[str, FeatureDictionary],
    begin: Callable[[str], Measures],
    folders: Mapping[str, Path],
    device: str,
) -> dict[str, Measures]:
    """The measures of each dictionary of a site. begin: those of one, by its name, before any row; folders: where each one's
    parts are kept."""
    groups = parts_of(store.heldout_pieces(n_rows))
    found = {name: begin(name) for name in dictionaries}
    total = sum(stop - start for pieces in groups for start, stop in pieces)
    with progress(total=total, unit="row", desc=f"score {len(dictionaries)} at {site.name}") as bar:
        for i, pieces in enumerate(groups):
            files = {name: folders[name] / PARTS / f"part-{i:02d}.npz" for name in dictionaries}
            part = {name: begin(name) for name in dictionaries}
            missing = [name for name, file in files.items() if not _load(file, part[name])]
            for values in _batches(store, site, pieces, batch_size, device) if missing else ():
                for name in missing:
                    rows = Rows.of(dictionaries[name], site, values)
                    for one in part[name].values():
                        one.add(rows)
            for name in missing:
                _save(files[name], part[name])
            for name, measures in found.items():
                for key, one in measures.items():
                    one.merge(part[name][key])
            bar.update(sum(stop - start for start, stop in pieces))
    return found


def parts_of(pieces: Pieces) -> list[Pieces]:
    """At most N_PARTS, of as many pieces each, but the last."""
    size = -(-len(pieces) // N_PARTS)
    return [pieces[i : i + size] for i in range(0, len(pieces), size)]


def _batches(
    store: ActivationStore, site: Site, pieces: Pieces, batch_size: int, device: str
) -> Iterator[dict[str, Tensor]]:
    """The same rows at every hook point of the site; no more than a piece of each is held."""
    names = tuple(dict.fromkeys(site.reads + site.writes))
    for start, stop in pieces:
        piece = {h: store.rows(h, start, stop, "heldout") for h in names}
        for i in range(0, stop - start, batch_size):
            yield {h: torch.from_numpy(rows[i : i + batch_size]).to(device).float() for h, rows in piece.items()}


def _save(file: Path, measures: Measures) -> None:
    states = {name: one.state() for name, one in measures.items()}
    commit_arrays(file, {f"{name}/{key}": array for name, own in states.items() for key, array in own.items()})


def _load(file: Path, measures: Measures) -> bool:
    """Whether the part was there, whole."""
    if (arrays := read_arrays(file)) is None:
        return False
    for name, one in measures.items():
        one.load({key.removeprefix(f"{name}/"): a for key, a in arrays.items() if key.startswith(f"{name}/")})
    return True
