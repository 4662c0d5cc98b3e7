"""score: feature dictionaries and their store → scores, a table, pictures.

scores.json is flat: {"dictionaries": [row, …], "groups": [row, …], "comparisons": [row, …], "sets": [row, …],
"pairs": [row, …], "documentation": what columns mean}.
"""

import shutil
import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.progress import progress
from pipeline.score.between import between_sites
from pipeline.score.config import ScoreConfig
from pipeline.score.documentation import DOCUMENTATION
from pipeline.score.downstream import Replacement, Splice
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.kept_pairs import KeptPairs
from pipeline.score.layers import next_layers
from pipeline.score.losses import losses, losses_by_hook_point, model_of
from pipeline.score.measures import columns_of, histogram_of, measures_of, truncations
from pipeline.score.pairs import Entry, all_pairs
from pipeline.score.places import written_too_early
from pipeline.score.results import read_histogram, read_row, write_results
from pipeline.score.rows import PARTS, measure
from pipeline.score.sets import TranscoderSet, execute_sets, read_sets, set_units
from pipeline.score.shares import scaled_decoder, shares
from pipeline.score.subjects import Subject
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.dictionary import folder_digest
from stores.manifest import commit_json, digest
from stores.site import Site

VERSION = 6
SUMMARY = 1  # of what is made of the units' rows
Work = list[tuple[Subject | TranscoderSet, Unit]]


def units(config: ScoreConfig, run: Path, store: ActivationStore, subjects: Sequence[Subject]) -> Work:
    """One unit per dictionary, those of a site together, and one per set of transcoders."""
    settings = {k: v for k, v in settings_json(config).items() if k not in ("dictionaries", "batch_size")}
    work: Work = []
    for subject in sorted(subjects, key=lambda s: _in_store(s.site, store)):
        inputs = {
            "dictionary_digest": folder_digest(subject.folder),
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


def _dictionaries(work: Work) -> list[tuple[Site, list[tuple[Subject, Unit]]]]:
    """Those that are scored alone, by site."""
    alone = [(what, unit) for what, unit in work if isinstance(what, Subject)]
    return [(site, list(same)) for site, same in groupby(alone, key=lambda item: item[0].site)]


def _sets(work: Work) -> list[tuple[TranscoderSet, Unit]]:
    return [(what, unit) for what, unit in work if isinstance(what, TranscoderSet)]


def execute(config: ScoreConfig, store: ActivationStore, work: Work, device: str, claims: Claims) -> None:
    """Score dictionaries, those of one site on one read of the rows and texts. work: with units that were begun. claims:
    whose they are."""
    groups = _dictionaries(work)
    model = model_of(store, device) if groups else None
    for site, items in groups:
        started = time.time()
        _say_early(site)
        dictionaries = {subject.name: subject.load(device) for subject, _ in items}
        means = {h: torch.from_numpy(store.stats(h).mean) for h in site.writes}
        kept = {s.name: truncations(dictionaries[s.name], config, _ordered(s)) for s, _ in items}
        folders = {subject.name: unit.folder for subject, unit in items}
        begin = lambda name: measures_of(dictionaries[name], means, kept[name])  # noqa: B023, E731
        measured = measure(store, site, config.n_rows, config.batch_size, dictionaries, begin, folders, device)
        histograms = {name: histogram_of(found) for name, found in measured.items()}
        replacements = [Replacement([Splice(site, f)]) for f in dictionaries.values()]
        lost: list[dict[str, Any]] = [{} for _ in items]
        if model:
            own = losses(config.n_sequences, store, model, site.writes, replacements)
            parts = losses_by_hook_point(config.n_sequences, store, model, site, list(dictionaries.values()))
            lost = [{**whole, **part} for whole, part in zip(own, parts, strict=True)]
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
    execute_sets(config, store, _sets(work), device, claims)


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


def summarize(run: Path, store: ActivationStore, work: Work) -> bool:
    """Bring scores.json and the pictures up to date with what was scored. Returns whether they changed.

    They follow from the units, so they are made anew whenever the set of dictionaries is another one.
    """
    from pipeline.score import pictures, spread  # imported late: they take a second

    folder = run / "score"
    inputs = digest([VERSION, SUMMARY, [[w.site.name, w.name, w.method, w.settings, unit.key] for w, unit in work]])
    summary = folder / "scores.json"
    if (json_object(summary) or {}).get("inputs") == inputs:
        return False
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
        pictures.draw(folder / site.name, site.name, own_rows, histograms, compared)
        if len(site.writes) > 1:
            live = {s.name: shares(scaled_decoder(s.load(), store))[histograms[s.name].density > 0] for s, _ in items}
            pictures.draw_shares(folder / site.name / "layers.png", site.writes, live)
    pair_rows += between_sites(everywhere, kept)
    pair_rows += next_layers([what for what, _ in work if isinstance(what, Subject)])
    settings = [s.settings for _, items in _dictionaries(work) for s, _ in items]
    commit_json(
        summary,
        {
            "inputs": inputs,
            "documentation": DOCUMENTATION,
            "dictionaries": rows,
            **spread.summary(rows, settings, pair_rows),
            "sets": read_sets(_sets(work), rows),
            "pairs": pair_rows,
        },
    )
    return True


def _entry(
    subject: Subject, unit: Unit, row: dict[str, Any], store: ActivationStore, histogram: ActivationHistogram
) -> Entry:
    def load() -> Tensor:
        blocks = scaled_decoder(subject.load(), store)
        return torch.nn.functional.normalize(torch.cat(blocks, dim=-1), dim=-1)[alive]

    alive = histogram.density > 0
    name, method, settings, signed = subject.name, subject.method, subject.settings, row["signed"]
    return Entry(name, method, settings, row["d_sae"], signed, load, int(alive.sum()), row["d_out"], unit.key)
