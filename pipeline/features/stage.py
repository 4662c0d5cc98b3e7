"""report, its first part: scored dictionaries and their store → tables of their features, of contexts and of probes."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from pipeline import stopping
from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.features.config import ReportConfig
from pipeline.features.elsewhere import write_elsewhere
from pipeline.features.files import CONTEXTS, FEATURES, PROBES, TOKENS, write_table
from pipeline.features.labels.own import labeller, own_digest
from pipeline.features.logits import Logits, direct_logits, mean_divisor, residual_directions
from pipeline.features.named import Truth, chance_columns, coordinates, named_columns, truth_of
from pipeline.features.single import Gathered, context_columns, feature_columns
from pipeline.models.files import ModelFiles
from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress
from pipeline.score.losses import model_of
from pipeline.score.results import HISTOGRAMS, read_histogram
from pipeline.score.rows import Pieces, batches
from pipeline.score.subjects import Subject
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.manifest import commit_bytes, file_digest
from stores.site import Site

VERSION = 5
LABELS = "report.labels"
_N_SEQUENCES = 16  # of text, on which the last norm's divisor is measured
Work = list[tuple[Subject, Unit]]


def units(
    config: ReportConfig,
    run: Path,
    store: ActivationStore,
    subjects: Sequence[Subject],
    digest_of: Callable[[Path], str] = file_digest,
) -> Work:
    """One unit per dictionary, those of a site together. digest_of: of a scored histogram, by its path.

    What was made of another scored histogram, or with another file of the user's own labels, is another unit's, which
    --replace makes again. Raises UserError: report.labels names no function.
    """
    own_labels = own_digest(config.labels, LABELS)
    settings = {k: v for k, v in settings_json(config).items() if k != "batch_size"}
    work: Work = []
    for subject in sorted(subjects, key=lambda s: s.site.name):
        place = Path(subject.site.name) / subject.name
        inputs = {
            "dictionary_digest": subject.digest,
            "store_digest": store.digest,
            "histogram_digest": digest_of(run / "score" / place / HISTOGRAMS),
            "labels_digest": own_labels,
            "basis": subject.basis,
        }
        folder = run / "features" / place
        work.append((subject, Unit("report", subject.name, folder, VERSION, settings, inputs)))
    return work


@dataclass(frozen=True)
class Shared:
    """What the dictionaries of all sites share, each found as it is first asked for. documents: the store's text, read
    again."""

    config: ReportConfig
    store: ActivationStore
    documents: Callable[[], Iterable[str]]
    device: str

    @cached_property
    def model(self) -> LanguageModel | None:
        return model_of(self.store, self.device)

    @cached_property
    def divisor(self) -> float:
        """The last norm's, on some of the text."""
        tokens, positions = self.store.heldout_tokens(_N_SEQUENCES), self.store.description.positions
        return mean_divisor(self.model, tokens, positions) if self.model else 1.0

    @cached_property
    def truth(self) -> Truth | None:
        """None: no labels are asked for, or the store's text has none."""
        if not self.config.labels:
            return None
        tokenizer = ModelFiles.of_store(self.store.description).tokenizer
        own, n_rows = labeller(self.config.labels, LABELS), _whole(self.config.n_label_rows, self.store)
        found = truth_of(self.store, tokenizer, n_rows, own, self.documents, token_texts(self.store))
        if found is None:
            print(f"report: no text of the store has labels by {LABELS} = {self.config.labels!r}", file=sys.stderr)
        return found


def execute(shared: Shared, work: Work, scored: Path, claims: Claims) -> None:
    """Describe the features of dictionaries, those of one site on one read of the rows. work: with units that were begun.
    scored: where the score stage has left their histograms."""
    config, store, device = shared.config, shared.store, shared.device
    for site, items in groupby(work, key=lambda item: item[0].site):
        items = list(items)
        dictionaries = {subject.name: subject.load(device) for subject, _ in items}
        truth = shared.truth
        gathered, x = _gather(config, store, site, dictionaries, device)
        everything = truth and coordinates(x[truth.rows], truth)
        for subject, unit in progress(items, desc=f"features at {site.name}", unit="dictionary"):
            stopping.look("the dictionaries before this one are described")
            started = time.time()
            dictionary, own = dictionaries[subject.name], gathered.pop(subject.name)
            codes = own.codes()
            histogram = read_histogram(scored / site.name / subject.name)
            logits = _logits(shared, site, dictionary)
            features = feature_columns(dictionary, histogram, own, codes, logits)
            probes: dict[str, Any] = {}
            if truth and everything:
                labelled, signed = codes[truth.rows], dictionary.signed
                named, probes = named_columns(labelled, signed, truth, everything)
                features |= named
                if dictionary.sparse:
                    by_chance, probes_by_chance = chance_columns(labelled, signed, truth)
                    features, probes = features | by_chance, probes | probes_by_chance
            if not claims.still_holds(unit):
                continue
            if probes:
                write_table(unit.folder / PROBES, probes)
            write_table(unit.folder / CONTEXTS, context_columns(store, own.contexts))
            write_table(unit.folder / FEATURES, features)  # last: where it is, pages are made of all
            unit.finish(device, time.time() - started, {"n_alive": int((features["n_active"] > 0).sum())})


@torch.inference_mode()
def _gather(
    config: ReportConfig,
    store: ActivationStore,
    site: Site,
    dictionaries: dict[str, FeatureDictionary],
    device: str,
) -> tuple[dict[str, Gathered], Float32[np.ndarray, "n_label_rows d_in"]]:
    """(of each dictionary what is known of its features, what is read at the rows that have labels). A row is read once,
    if it is looked at for contexts, for labels or for both."""
    found = {name: Gathered.empty(f, store, config) for name, f in dictionaries.items()}
    looked_at = dict(store.heldout_pieces(_whole(config.n_rows, store)))
    n_label_rows, chunk = _whole(config.n_label_rows, store), store.chunk_rows
    labelled = {start: min(start + chunk, n_label_rows) for start in range(0, n_label_rows, chunk)}
    pieces = [(a, max(looked_at.get(a, 0), labelled.get(a, 0))) for a in sorted({*looked_at, *labelled})]
    total = sum(stop - start for start, stop in pieces)
    kept: list[np.ndarray] = []
    with progress(total=total, unit="row", desc=f"contexts of {len(found)} at {site.name}") as bar:
        for start, stop in pieces:
            stopping.look("the sites before this one are described")
            for first, x in _batches(config, store, site, [(start, stop)], device):
                n_looked_at = max(0, looked_at.get(start, 0) - first)
                n_labelled = max(0, labelled.get(start, 0) - first)
                kept.append(x[:n_labelled].cpu().numpy())
                for name, dictionary in dictionaries.items():
                    z = dictionary.encode(x)
                    found[name].add(z[:n_looked_at], first)
                    found[name].keep(z[:n_labelled], dictionary.sparse)
                bar.update(len(x))
    return found, np.concatenate(kept)


def _whole(n_rows: int, store: ActivationStore) -> int:
    """As many rows, of whole sequences: one sequence at least, and no more than are held out."""
    n_positions = store.description.n_positions
    return min(max(1, n_rows // n_positions) * n_positions, store.n_heldout_rows)


def _batches(
    config: ReportConfig, store: ActivationStore, site: Site, pieces: Pieces, device: str
) -> Iterator[tuple[int, Tensor]]:
    """(the first row, what is read there) of whole sequences."""
    for first, rows in batches(store, Site(site.reads, site.reads), pieces, _whole(config.batch_size, store), device):
        yield first, torch.cat([rows[h] for h in site.reads], dim=-1)


def _logits(shared: Shared, site: Site, dictionary: FeatureDictionary) -> Logits | None:
    """None: there is no model, or what is written is not one part of the residual stream."""
    model = shared.model
    if model is None or len(site.writes) != 1:  # each of several is a part of the same stream
        return None
    (hook_point,) = site.writes
    directions = residual_directions(model, hook_point, dictionary.W_dec)
    return None if directions is None else direct_logits(model, directions, shared.divisor)


def token_texts(store: ActivationStore) -> dict[int, str]:
    tokenizer = ModelFiles.of_store(store.description).tokenizer
    return {i: tokenizer.decode([i], skip_special_tokens=False) for i in range(tokenizer.get_vocab_size())}


def write_shared(folder: Path, store: ActivationStore, subjects: Sequence[Subject], device: str, did: bool) -> None:
    """What is of all dictionaries together: the text of each token, for pages, and the nearest features of others. folder:
    RUN/features. did: whether a dictionary's features were described anew, perhaps with another tokenizer."""
    if did or not (folder / TOKENS).exists():
        commit_bytes(folder / TOKENS, json.dumps({str(i): text for i, text in token_texts(store).items()}).encode())
    write_elsewhere(folder, subjects, device)
