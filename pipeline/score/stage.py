"""score: feature dictionaries and their store → scores, a table, pictures.

scores.json is flat: {"dictionaries": [row, …], "sets": [row, …], "pairs": [row, …], "documentation": what columns mean}.
"""

import sys
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.progress import progress
from pipeline.score.config import ScoreConfig
from pipeline.score.documentation import DOCUMENTATION
from pipeline.score.downstream import Replacement, Splice
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.layers import next_layers
from pipeline.score.losses import losses, model_of
from pipeline.score.measures import measure, truncations
from pipeline.score.pairs import Entry, all_pairs
from pipeline.score.places import written_too_early
from pipeline.score.results import read_histogram, read_row, write_results
from pipeline.score.sets import TranscoderSet, execute_sets, read_sets, set_units
from pipeline.score.subjects import Subject
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.dictionary import folder_digest
from stores.manifest import commit_json, digest
from stores.site import Site

VERSION = 4
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


def _in_store(site: Site, store: ActivationStore) -> list[list[int]]:
    """By what is written, in the order of the store's hook points, and then by what is read."""
    return [[store.hook_points.index(h) for h in names] for names in (site.writes, site.reads)]


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
        kept = {s.name: truncations(dictionaries[s.name], config, _ordered(s)) for s, _ in items}
        measured, histograms = measure(config, store, site, dictionaries, kept, device)
        replacements = [Replacement([Splice(site, f)]) for f in dictionaries.values()]
        lost = losses(config.n_sequences, store, model, site.writes, replacements) if model else [{}] * len(items)
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
                **measured[subject.name],
                **loss,
            }
            if not claims.still_holds(unit):
                continue
            write_results(unit.folder, row, histogram)
            headline = {k: round(row[k], 6) for k in ("l0", "fvu", "ce_score_zero") if k in row}
            unit.finish(device, time.time() - started, headline)
    execute_sets(config, store, _sets(work), device, claims)


def _say_early(site: Site) -> None:
    if early := written_too_early(site):
        print(
            f"score: {site.name}: {early[0]} is written before {early[1]} is read, so what is read is taken from the model's "
            f"own pass",
            file=sys.stderr,
        )


def summarize(run: Path, work: Work) -> bool:
    """Bring scores.json and the pictures up to date with what was scored. Returns whether they changed.

    They follow from the units, so they are made anew whenever the set of dictionaries is another one.
    """
    from pipeline.score import pictures

    folder = run / "score"
    inputs = digest([VERSION, [[w.site.name, w.name, w.method, w.settings, unit.key] for w, unit in work]])
    summary = folder / "scores.json"
    if (json_object(summary) or {}).get("inputs") == inputs:
        return False
    rows, pair_rows = [], []
    for site, items in _dictionaries(work):
        histograms = {s.name: read_histogram(u.folder) for s, u in items}
        own_rows = [read_row(u.folder, s.name) for s, u in items]
        entries = [_entry(s, histograms[s.name]) for s, _ in items]
        compared = list(progress(all_pairs(entries), desc=f"pairs at {site.name}", unit="pair"))
        rows += own_rows
        pair_rows += [{"site": site.name, **scores} for scores, _ in compared]
        pictures.draw(folder / site.name, site.name, own_rows, histograms, compared)
    pair_rows += next_layers([what for what, _ in work if isinstance(what, Subject)])
    commit_json(
        summary,
        {
            "inputs": inputs,
            "documentation": DOCUMENTATION,
            "dictionaries": rows,
            "sets": read_sets(_sets(work), rows),
            "pairs": pair_rows,
        },
    )
    return True


def _entry(subject: Subject, histogram: ActivationHistogram) -> Entry:
    dictionary = subject.load()
    directions = dictionary.directions[histogram.density > 0]
    return Entry(subject.name, subject.method, subject.settings, dictionary.d_sae, dictionary.signed, directions)
