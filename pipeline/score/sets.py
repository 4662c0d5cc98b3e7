"""Transcoders that are spliced in all at once: each reads the stream that those before it changed.

Source: Dunefsky, Chlenski, Nanda 2024, "Transcoders find interpretable LLM feature circuits"; the error terms that lead back
to the model's own output are those of Marks et al. 2024, "Sparse feature circuits".
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.claims import Claims
from pipeline.models.hook_points import layer_of, place
from pipeline.models.protocol import LanguageModel
from pipeline.score.codes import reconstruct
from pipeline.score.config import ScoreConfig
from pipeline.score.downstream import Replacement, Splice
from pipeline.score.losses import losses
from pipeline.score.places import written_too_early
from pipeline.score.results import SET_COLUMNS, read_row, write_row
from pipeline.score.subjects import Subject
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.manifest import digest
from stores.site import Site


@dataclass(frozen=True)
class TranscoderSet:
    """Transcoders of the same method and settings, in the order of the pass."""

    members: tuple[Subject, ...]

    @property
    def name(self) -> str:
        return self.members[0].name

    @property
    def method(self) -> str:
        return self.members[0].method

    @property
    def settings(self) -> dict[str, Any]:
        return self.members[0].settings

    @property
    def site(self) -> Site:
        """What they read and write, all together."""
        reads = dict.fromkeys(h for s in self.members for h in s.site.reads)
        return Site(tuple(reads), tuple(h for s in self.members for h in s.site.writes))


def sets_of(subjects: Sequence[Subject]) -> list[TranscoderSet]:
    """Those transcoders that differ in nothing but the layer, where there are several of them, and each writes one hook
    point of its own, after all that it reads."""
    alike: dict[str, list[Subject]] = {}
    for s in subjects:
        if s.site.reads != s.site.writes and len(s.site.writes) == 1 and not written_too_early(s.site):
            layer = layer_of(s.site.writes[0])
            kind = [(layer_of(h) - layer, re.sub(r"^blocks\.\d+\.", "", h)) for h in s.site.reads + s.site.writes]
            alike.setdefault(digest([s.method, s.name, s.settings, kind]), []).append(s)
    found = []
    for members in alike.values():
        writes = {s.site.writes for s in members}
        if len(members) == len(writes) > 1:
            found.append(TranscoderSet(tuple(sorted(members, key=lambda s: place(s.site.writes[0])))))
    return sorted(found, key=lambda t: t.site.name)


def set_units(
    config: ScoreConfig, run: Path, store: ActivationStore, subjects: Sequence[Subject], version: int
) -> list[tuple[TranscoderSet, Unit]]:
    """One unit per set, in a folder beside those of the sites. None where no language model made the rows."""
    work = []
    for together in sets_of(subjects) if store.description.model != "none" else []:
        digests = {s.site.name: s.digest for s in together.members}
        inputs = {"dictionary_digests": digests, "store_digest": store.digest}
        folder = run / "score" / f"all-{together.site.name}" / together.name
        work.append(
            (together, Unit("score", together.name, folder, version, {"n_sequences": config.n_sequences}, inputs))
        )
    return work


def execute_sets(
    config: ScoreConfig,
    store: ActivationStore,
    work: Sequence[tuple[TranscoderSet, Unit]],
    device: str,
    claims: Claims,
    loaded: Callable[[], LanguageModel | None],
) -> None:
    """Splice sets in, those of one site on one pass over the texts. work, claims, loaded: as of the dictionaries."""
    for site, same in groupby(work, key=lambda item: item[0].site):
        items, started = list(same), time.time()
        replacements = []
        for together, _ in items:
            splices = [Splice(s.site, partial(reconstruct, s.load(device))) for s in together.members]
            replacements += [Replacement(splices, live=True, errors=errors) for errors in (False, True)]
        model = loaded()
        assert model is not None  # set_units has none otherwise
        found = losses(config.n_sequences, store, model, site.writes, replacements)
        for (together, unit), plain, with_errors in zip(items, found[::2], found[1::2], strict=True):
            row = {
                "site": site.name,
                "name": together.name,
                "method": together.method,
                "sites": [s.site.name for s in together.members],
                **plain,
                **{f"{key}_with_errors": with_errors[key] for key in ("ce", "kl", "top1")},
            }
            if claims.still_holds(unit):
                write_row(unit.folder, row)
                headline = {k: row[k] for k in ("ce_score_zero", "kl", "top1")}
                unit.finish(device, time.time() - started, headline)


def read_sets(work: Sequence[tuple[TranscoderSet, Unit]], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The scored sets. rows: of the dictionaries, from which their mean FVU is. Raises UserError: one is damaged."""
    fvu = {(row["site"], row["name"]): row["fvu"] for row in rows}
    found = []
    for together, unit in work:
        own = [fvu[s.site.name, s.name] for s in together.members]
        row = read_row(unit.folder, together.name, SET_COLUMNS)
        found.append({**row, "fvu": round(sum(own) / len(own), 6)})
    return found
