"""Do the axes in which a layer writes agree with those in which the next one reads?"""

from collections.abc import Sequence
from typing import Any

import torch

from pipeline.models.hook_points import layer_of
from pipeline.score.pairs import Entry, compare
from pipeline.score.similarity import matched_cosine, random_directions
from pipeline.score.subjects import Subject
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of


def next_layers(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    """A row for each dictionary of two bases: what it writes beside what the next one of the same method and settings
    reads, whether the store has these hook points or not."""
    folders = {s.folder: s for s in subjects if s.basis is not None}
    bases = [(s, *FeatureDictionary.load(folder, mmap=False).bases()) for folder, s in folders.items()]
    rows = []
    for a, a_reads, a_writes in bases:
        alike = [reads for b, reads, _ in bases if (b.method, b.settings) == (a.method, a.settings)]
        later = [reads for reads in alike if layer_of(reads.hook_point) > layer_of(a_reads.hook_point)]
        if later:
            rows.append(_row(a, a_writes, min(later, key=lambda reads: layer_of(reads.hook_point))))
    return rows


def _row(a: Subject, writes: FeatureDictionary, reads: FeatureDictionary) -> dict[str, Any]:
    written, read = writes.directions, reads.directions
    name = a.folder.name
    scores, _ = compare(
        Entry.of(f"{name}-output", a.method, a.settings, len(written), True, written),
        Entry.of(name, a.method, a.settings, len(read), True, read),
    )
    random = torch.linalg.qr(random_directions(len(read), read.shape[1], seed_of("next layer")))[0]
    floor = round(matched_cosine(written, random, signed=True), 4)
    return {
        "site": f"{writes.hook_point} → {reads.hook_point}",
        "relation": "next layer",
        **scores,
        "matched_floor": floor,
    }
