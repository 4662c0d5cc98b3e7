"""score: feature dictionaries and their store → scores, a table, pictures.

scores.json is flat: {"dictionaries": [row, …], "groups": [row, …], "comparisons": [row, …], "sets": [row, …],
"pairs": [row, …], "missing": [SITE/NAME of what has no scores yet, …], "documentation": what columns mean}.
"""

import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress
from pipeline.score.between import between_sites
from pipeline.score.codes import reconstruct
from pipeline.score.config import ScoreConfig
from pipeline.score.documentation import DOCUMENTATION
from pipeline.score.downstream import Replacement, Splice
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.kept_pairs import KeptPairs
from pipeline.score.layers import next_layers
from pipeline.score.losses import losses, losses_by_hook_point
from pipeline.score.measures import columns_of, histogram_of, measures_of
from pipeline.score.pairs import Entry, all_pairs
from pipeline.score.places import written_too_early
from pipeline.score.results import read_histogram, read_row, write_results
from pipeline.score.rows import PARTS, Parts, measure, parts_of
from pipeline.score.sets import TranscoderSet, execute_sets, read_sets, set_units
from pipeline.score.shares import scaled_decoder, shares
from pipeline.score.subjects import Subject
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.manifest import commit_json, digest
from stores.site import Site

VERSION = 8
SUMMARY = 4  # of what is made of the units' rows
Work = list[tuple[Subject | TranscoderSet, Unit]]


def units(config: ScoreConfig, run: Path, store: ActivationStore, subjects: Sequence[Subject]) -> Work:
    """One unit per dictionary, those of a site together, and one per set of transcoders."""
    settings = {k: v for k, v in settings_json(config).items() if k not in ("dictionaries", "batch_size")}
    work: Work = []
    for subject in sorted(subjects, key=lambda s: _in_store(s.site, store)):
        inputs = {
            "dictionary_digest": subject.digest,
            "store_digest": store.digest,
            "method": subject.method,
            "ordered": _ordered(subject),
            "basis": subject.basis,
        }
        folder = run / "score" / subject.site.name / subject.name
        work.append((subject, Unit("score", subject.name, folder, VERSION, settings, inputs)))
    return [*work, *set_units(config, run, store, subjects, VERSION)]


def _in_store(site: Site, store: ActivationStore) -> tuple[bool, list[int], list[int]]:
    """Those of several hook points last; by what is written, in the order of the store's hook points, and then read."""
    writes, reads = ([store.hook_points.index(h) for h in names] for names in (site.writes, site.reads))
    return max(len(writes), len(reads)) > 1, writes, reads


def _ordered(subject: Subject) -> bool:
    """Whether features are in the order of their variance, so that the first ones are a dictionary, too."""
    return "pca" in (subject.method, subject.origin)


def how_far(unit: Unit, config: ScoreConfig, store: ActivationStore) -> tuple[int, int, str, Path]:
    """(done, of, unit of counting, what grows with it) of one dictionary. The last part is what follows the pass over the
    rows: cross-entropy, and the manifest."""
    n_parts = 1 + len(parts_of(store.heldout_pieces(config.n_rows)))
    folder = unit.folder / PARTS
    return sum(1 for _ in folder.glob("part-*.npz")), n_parts, "parts", folder


def places(what: Subject | TranscoderSet, unit: Unit) -> tuple[str, ...]:
    """SITE/NAME of what is scored, and of the dictionary that was trained: one of two bases is scored at other sites."""
    return (unit.place, f"{what.folder.parent.name}/{what.folder.name}") if isinstance(what, Subject) else (unit.place,)


def _dictionaries(work: Work) -> list[tuple[Site, list[tuple[Subject, Unit]]]]:
    """Those that are scored alone, by site."""
    alone = [(what, unit) for what, unit in work if isinstance(what, Subject)]
    return [(site, list(same)) for site, same in groupby(alone, key=lambda item: item[0].site)]


def _sets(work: Work) -> list[tuple[TranscoderSet, Unit]]:
    return [(what, unit) for what, unit in work if isinstance(what, TranscoderSet)]


def execute(
    config: ScoreConfig,
    store: ActivationStore,
    work: Work,
    device: str,
    claims: Claims,
    loaded: Callable[[], LanguageModel | None],
) -> None:
    """Score dictionaries, those of one site on one read of the rows and texts. work: with units that were begun. claims:
    whose they are. loaded: the model that made the store, asked for where there is work."""
    for site, items in _dictionaries(work):
        started = time.time()
        _say_early(site)
        dictionaries = {subject.name: subject.load(device) for subject, _ in items}
        ordered = {subject.name: _ordered(subject) for subject, _ in items}
        parts = {subject.name: Parts(unit.folder, unit.key) for subject, unit in items}
        begin = lambda name: measures_of(dictionaries[name], config, ordered[name])  # noqa: B023, E731
        measured = measure(store, site, config.n_rows, config.batch_size, dictionaries, begin, parts, device)
        histograms = {name: histogram_of(found) for name, found in measured.items()}
        replacements = [Replacement([Splice(site, partial(reconstruct, f))]) for f in dictionaries.values()]
        lost: list[dict[str, Any]] = [{} for _ in items]
        if model := loaded():
            own = losses(config.n_sequences, store, model, site.writes, replacements)
            by_hook_point = losses_by_hook_point(config.n_sequences, store, model, site, list(dictionaries.values()))
            lost = [{**whole, **each} for whole, each in zip(own, by_hook_point, strict=True)]
        for (subject, unit), loss in zip(items, lost, strict=True):
            dictionary, histogram = dictionaries[subject.name], histograms[subject.name]
            row = {
                "site": site.name,
                "reads": site.reads,
                "writes": site.writes,
                "name": subject.name,
                "method": subject.method,
                "d_in": dictionary.d_in,
                "d_out": dictionary.d_out,
                "d_sae": dictionary.d_sae,
                "signed": dictionary.signed,
                "sparse": dictionary.sparse,
                **columns_of(config, measured[subject.name]),
                "warnings": dictionary.provenance.get("warnings", []),
                **_mean_shares(site, scaled_decoder(dictionary, store), histogram),
                **loss,
            }
            if not claims.still_holds(unit):
                continue
            write_results(unit.folder, row, histogram)
            headline = {k: round(row[k], 6) for k in ("l0", "fvu", "ce_score_zero") if k in row}
            shutil.rmtree(unit.folder / PARTS, ignore_errors=True)
            unit.finish(device, time.time() - started, headline)
    execute_sets(config, store, _sets(work), device, claims, loaded)


def _say_early(site: Site) -> None:
    if early := written_too_early(site):
        print(
            f"score: {site.name}: {early[0]} is written before {early[1]} is read, so what is read is taken from the model's "
            f"own pass",
            file=sys.stderr,
        )


def _mean_shares(site: Site, blocks: list[Tensor], histogram: ActivationHistogram) -> dict[str, float | None]:
    """Of the features that are not dead; none where one hook point is written."""
    if len(site.writes) < 2:
        return {}
    alive = histogram.density > 0
    means = shares([block.cpu() for block in blocks])[alive].mean(0).tolist() if alive.any() else [None] * len(blocks)
    return {f"share[{h}]": mean for h, mean in zip(site.writes, means, strict=True)}


def summarize(
    run: Path, store: ActivationStore, found: Callable[[], tuple[Work, Sequence[str]]], claims: Claims
) -> bool:
    """Bring scores.json and the pictures up to date with what is scored, by whichever process. Returns whether they changed.

    They follow from the units, so they are made anew whenever the set of those that are done is another one.
    found: (the units of what is trained, SITE/NAME of what is not), asked for again by the one process that is at it.
    """
    if summarized(run, *found()):
        return False
    with claims.alone("the table of scores") as still:
        work, missing = _scored(*found())
        inputs, old = _inputs(work, missing), (json_object(run / "score" / "scores.json") or {}).get("inputs")
        if old == inputs:
            return False
        before = old["sites"] if isinstance(old, dict) else {}  # it was one digest once
        drawn = {site for site, own in inputs["sites"].items() if before.get(site) == own}
        summary = _summary(run / "score", store, work, drawn)
        if still():
            head = {"inputs": inputs, "documentation": DOCUMENTATION, "missing": missing}
            commit_json(run / "score" / "scores.json", {**head, **summary})
    return True


def summarized(run: Path, work: Work, untrained: Sequence[str]) -> bool:
    """Whether scores.json is that of what is scored by now."""
    return (json_object(run / "score" / "scores.json") or {}).get("inputs") == _inputs(*_scored(work, untrained))


def _scored(work: Work, untrained: Sequence[str]) -> tuple[Work, list[str]]:
    """(those that are done, SITE/NAME of all others). A set is none without the scores of its members."""
    done = [(what, unit) for what, unit in work if unit.is_done()]
    there = {(what.site, what.name) for what, _ in done if isinstance(what, Subject)}
    whole = lambda what: isinstance(what, Subject) or {(s.site, s.name) for s in what.members} <= there  # noqa: E731
    done = [(what, unit) for what, unit in done if whole(what)]
    folders = {unit.folder for _, unit in done}
    return done, [*untrained, *(unit.place for _, unit in work if unit.folder not in folders)]


def _inputs(work: Work, missing: list[str]) -> dict[str, Any]:
    """What a summary follows from: a digest for each site, whose pictures follow from it, and one of what is missing."""
    sites: dict[str, list[Any]] = {}
    for what, unit in work:
        sites.setdefault(unit.folder.parent.name, []).append([what.name, what.method, what.settings, unit.key])
    return {"sites": {s: digest([VERSION, SUMMARY, own]) for s, own in sites.items()}, "missing": digest(missing)}


def _summary(folder: Path, store: ActivationStore, work: Work, drawn: Collection[str]) -> dict[str, Any]:
    """What scores.json has of units that are done. Draws the pictures. drawn: sites that have theirs."""
    from pipeline.score import pictures, spread  # imported late: they take a second

    rows, pair_rows, kept = [], [], KeptPairs(folder / "pairs")
    everywhere: list[tuple[Site, Entry]] = []
    for site, items in _dictionaries(work):
        histograms = {s.name: read_histogram(u.folder) for s, u in items}
        own_rows = [read_row(u.folder, s.name) for s, u in items]
        entries = [_entry(s, u, r, store, histograms[s.name]) for (s, u), r in zip(items, own_rows, strict=True)]
        compared = list(progress(all_pairs(entries, kept), desc=f"pairs at {site.name}", unit="pair"))
        everywhere += [(site, entry) for (s, _), entry in zip(items, entries, strict=True) if s.basis is None]
        rows += own_rows
        pair_rows += [{"site": site.name, **scores} for scores, _ in compared]
        if site.name in drawn:
            continue
        pictures.draw(folder / site.name, site.name, own_rows, histograms, compared)
        if len(site.writes) > 1:
            live = {s.name: shares(scaled_decoder(s.load(), store))[histograms[s.name].density > 0] for s, _ in items}
            pictures.draw_shares(folder / site.name / "layers.png", site.writes, live)
    pair_rows += between_sites(everywhere, kept)
    pair_rows += next_layers([what for what, _ in work if isinstance(what, Subject)])
    settings = [s.settings for _, items in _dictionaries(work) for s, _ in items]
    return {
        "dictionaries": rows,
        **spread.summary(rows, settings, pair_rows),
        "sets": read_sets(_sets(work), rows),
        "pairs": pair_rows,
    }


def _entry(
    subject: Subject, unit: Unit, row: dict[str, Any], store: ActivationStore, histogram: ActivationHistogram
) -> Entry:
    def load() -> Tensor:
        blocks = scaled_decoder(subject.load(), store)
        return torch.nn.functional.normalize(torch.cat(blocks, dim=-1), dim=-1)[alive]

    alive = histogram.density > 0
    name, method, settings, signed = subject.name, subject.method, subject.settings, row["signed"]
    return Entry(name, method, settings, row["d_sae"], signed, load, int(alive.sum()), row["d_out"], unit.key)
