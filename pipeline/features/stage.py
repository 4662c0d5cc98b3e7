"""report, its first part: scored dictionaries and their store → tables of their features, of contexts and of probes."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.features.config import ReportConfig
from pipeline.features.files import CONTEXTS, FEATURES, PROBES, write_table
from pipeline.features.labels.own import labeller
from pipeline.features.logits import Logits, direct_logits, mean_divisor, residual_directions
from pipeline.features.named import Truth, coordinates, named_columns, truth_of
from pipeline.features.single import Gathered, codes_of, context_columns, feature_columns
from pipeline.models.files import ModelFiles
from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress
from pipeline.score.losses import model_of
from pipeline.score.results import read_histogram
from pipeline.score.subjects import Subject
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary, folder_digest
from stores.manifest import commit_bytes
from stores.site import Site

VERSION = 1
TOKENS = "tokens.json"
_N_SEQUENCES = 16  # of text, on which the last norm's divisor is measured
Work = list[tuple[Subject, Unit]]


def units(config: ReportConfig, run: Path, store: ActivationStore, subjects: Sequence[Subject]) -> Work:
    """One unit per dictionary, those of a site together."""
    settings = {k: v for k, v in settings_json(config).items() if k != "batch_size"}
    work: Work = []
    for subject in sorted(subjects, key=lambda s: s.site.name):
        inputs = {
            "dictionary_digest": folder_digest(subject.folder), "store_digest": store.digest, "basis": subject.basis
        }  # fmt: skip
        folder = run / "features" / subject.site.name / subject.name
        work.append((subject, Unit("report", subject.name, folder, VERSION, settings, inputs)))
    return work


def execute(
    config: ReportConfig,
    store: ActivationStore,
    work: Work,
    scored: Path,
    documents: Callable[[], Iterable[str]],
    device: str,
    claims: Claims,
) -> None:
    """Describe the features of dictionaries, those of one site on one read of the rows. work: with units that were begun.
    scored: where the score stage has left their histograms. documents: the store's text, read again."""
    model = model_of(store, device) if work else None
    divisor = _divisor(model, store)
    truth = _truth(config, store, documents) if work else None
    for site, items in groupby(work, key=lambda item: item[0].site):
        items = list(items)
        dictionaries = {subject.name: subject.load(device) for subject, _ in items}
        gathered = _gather(config, store, site, dictionaries, device)
        everything = truth and coordinates(_first_rows(config, store, site)[truth.rows], truth)
        for subject, unit in progress(items, desc=f"features at {site.name}", unit="dictionary"):
            started = time.time()
            dictionary, own = dictionaries[subject.name], gathered.pop(subject.name)
            codes = own.codes()
            histogram = read_histogram(scored / site.name / subject.name)
            logits = _logits(model, divisor, site, dictionary)
            features = feature_columns(dictionary, histogram, own, codes, logits)
            probes: dict[str, Any] = {}
            if truth and everything:
                named, probes = named_columns(codes[truth.rows], dictionary.signed, truth, everything)
                features |= named
            if not claims.still_holds(unit):
                continue
            if probes:
                write_table(unit.folder / PROBES, probes)
            write_table(unit.folder / FEATURES, features)
            write_table(unit.folder / CONTEXTS, context_columns(store, own.contexts))
            unit.finish(device, time.time() - started, {"n_alive": int((features["n_active"] > 0).sum())})


@torch.no_grad()
def _gather(
    config: ReportConfig,
    store: ActivationStore,
    site: Site,
    dictionaries: dict[str, FeatureDictionary],
    device: str,
) -> dict[str, Gathered]:
    found = {name: Gathered.empty(f, store, config) for name, f in dictionaries.items()}
    pieces = store.heldout_pieces(_whole(config.n_rows, store))
    total = sum(stop - start for start, stop in pieces)
    with progress(total=total, unit="row", desc=f"contexts of {len(found)} at {site.name}") as bar:
        for first, x in _batches(config, store, site, pieces, device):
            for name, dictionary in dictionaries.items():
                found[name].add(codes_of(dictionary, x), first)
            bar.update(len(x))
    for _, x in _batches(config, store, site, [(0, _whole(config.n_label_rows, store))], device):
        for name, dictionary in dictionaries.items():
            found[name].keep(codes_of(dictionary, x), dictionary.sparse)
    return found


def _truth(config: ReportConfig, store: ActivationStore, documents: Callable[[], Iterable[str]]) -> Truth | None:
    """None: no labels are asked for, or the store's text has none."""
    if not config.labels:
        return None
    tokenizer = ModelFiles.of_store(store.description).tokenizer
    own = labeller(config.labels, "report.labels")
    found = truth_of(store, tokenizer, _whole(config.n_label_rows, store), own, documents, token_texts(store))
    if found is None:
        print(f"report: no text of the store has labels by report.labels = {config.labels!r}", file=sys.stderr)
    return found


def _first_rows(config: ReportConfig, store: ActivationStore, site: Site) -> np.ndarray:
    n_rows = _whole(config.n_label_rows, store)
    return np.concatenate([store.rows(h, 0, n_rows, "heldout").astype(np.float32) for h in site.reads], axis=-1)


def _whole(n_rows: int, store: ActivationStore) -> int:
    """As many rows, of whole sequences: one sequence at least, and no more than are held out."""
    n_positions = store.description.n_positions
    return min(max(1, n_rows // n_positions) * n_positions, store.n_heldout_rows)


def _batches(
    config: ReportConfig, store: ActivationStore, site: Site, pieces: list[tuple[int, int]], device: str
) -> Iterator[tuple[int, Tensor]]:
    """(the first row, what is read there) of whole sequences."""
    size = _whole(config.batch_size, store)
    for start, stop in pieces:
        for first in range(start, stop, size):
            rows = [store.rows(h, first, min(first + size, stop), "heldout") for h in site.reads]
            yield first, torch.cat([torch.from_numpy(own).to(device).float() for own in rows], dim=-1)


def _divisor(model: LanguageModel | None, store: ActivationStore) -> float:
    return mean_divisor(model, store.heldout_tokens(_N_SEQUENCES), store.description.positions) if model else 1.0


def _logits(model: LanguageModel | None, divisor: float, site: Site, dictionary: FeatureDictionary) -> Logits | None:
    """None: there is no model, or what is written is not one part of the residual stream."""
    if model is None or len(site.writes) != 1:  # each of several is a part of the same stream
        return None
    (hook_point,) = site.writes
    directions = residual_directions(model, hook_point, dictionary.W_dec)
    return None if directions is None else direct_logits(model, directions, divisor)


def token_texts(store: ActivationStore) -> dict[int, str]:
    tokenizer = ModelFiles.of_store(store.description).tokenizer
    return {i: tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())}


def write_tokens(run: Path, store: ActivationStore) -> None:
    """The text of each token, for pages."""
    commit_bytes(
        run / "features" / TOKENS, json.dumps({str(i): text for i, text in token_texts(store).items()}).encode()
    )
