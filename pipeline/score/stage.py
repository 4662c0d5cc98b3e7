"""score: feature dictionaries and their store → scores, a table, pictures.

scores.json is flat: {"dictionaries": [row, …], "pairs": [row, …], "documentation": what every column means}.
"""

import re
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, cast

import torch

from pipeline.claims import Claims
from pipeline.config import settings_json
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel, Precision
from pipeline.progress import progress
from pipeline.score.config import ScoreConfig
from pipeline.score.downstream import Downstream, Reconstruct, ce_score, evaluate
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.pairs import Entry, all_pairs, compare
from pipeline.score.reconstruction import Reconstruction, keep_first, keep_largest
from pipeline.score.results import read_histogram, read_row, write_results
from pipeline.score.similarity import matched_cosine, random_directions
from pipeline.score.subjects import Subject
from pipeline.unit_files import json_object
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary, folder_digest
from stores.manifest import commit_json, digest, seed_of

VERSION = 3
Truncation = Callable[[torch.Tensor], torch.Tensor]

DOCUMENTATION = {
    "l0": "mean number of active features a token",
    "l0_p10, l0_p90": "its 10% and 90% quantiles over tokens",
    "fvu": "fraction of variance unexplained, sums over all scored rows; 0 perfect, 1 the mean",
    "normalized_mse": "sum |x - x_hat|^2 / sum |x|^2",
    "fvu_at_l0_K": "linear dictionaries: fvu with each row's K largest coordinates kept",
    "fvu_first_K": "pca: fvu with the K components of largest variance kept",
    "dead": "features active on none of the n_rows scored rows",
    "ultra_low_density": "features active, but on a smaller fraction of the rows than score.ultra_low_density; null "
    "where that is less than one row",
    "signed": "whether codes may be negative, as those of rotations and PCA",
    "ce_*, kl, n_predictions": "absent where the store's rows were made by no language model",
    "ce_clean, ce, kl": "nats a token: model as it is, with the reconstruction spliced in, and the divergence between",
    "ce_zero, ce_mean": "nats a token with the activations replaced by zero, by the mean of the store's rows",
    "ce_score_zero, ce_score_mean": "(ce_ablated - ce) / (ce_ablated - ce_clean)",
    "n_rows, n_predictions": "held-out rows and predictions scored; positions as in the store: by default all but the "
    "first, BOS (the separators of documents within a context stay)",
    "pairs: mmcs": "mean over a's live features of the largest cosine with any of b's; |cosine| where signed",
    "pairs: random_floor": "the same with b replaced by as many random directions",
    "pairs: matched_cosine": "mean cosine of the best one-to-one matching",
    "pairs: matched_floor": "the same with a random basis in b's place",
    "pairs: relation": "seed: all else equal; larger, smaller: next size; method: another way to make a dictionary; "
    "foreign: either is of score.dictionaries; truth: either is the ground truth of a toy; next layer: a is what one "
    "layer writes, b what the next one reads",
}


def units(
    config: ScoreConfig, run: Path, store: ActivationStore, subjects: list[Subject]
) -> list[tuple[Subject, Unit]]:
    """One unit per dictionary."""
    settings = {k: v for k, v in settings_json(config).items() if k not in ("dictionaries", "batch_size")}
    work = []
    for subject in subjects:
        inputs = {
            "dictionary_digest": folder_digest(subject.folder),
            "store_digest": store.digest,
            "method": subject.method,
            "ordered": _ordered(subject),
        }
        folder = run / "score" / subject.hook_point / subject.name
        work.append((subject, Unit("score", subject.name, folder, VERSION, settings, inputs)))
    return work


def _ordered(subject: Subject) -> bool:
    """Whether features are in the order of their variance, so that the first ones are a dictionary, too."""
    return "pca" in (subject.method, subject.origin)


def execute(
    config: ScoreConfig, store: ActivationStore, work: list[tuple[Subject, Unit]], device: str, claims: Claims
) -> None:
    """Score dictionaries, those of one hook point on one read of the rows and texts. work: with units that were begun.
    claims: whose they are."""
    if not work:
        return
    # Rows that no language model made, as those of a toy, have no cross-entropy.
    model = None
    if store.description.model != "none":
        description = store.description
        precision = cast(Precision, description.precision)
        model = load_model(ModelFiles.of_store(description), description.weight_processing, device, precision)
    for hook_point, together in groupby(work, key=lambda item: item[0].hook_point):
        items, started = list(together), time.time()
        dictionaries = {subject.name: subject.load(device) for subject, _ in items}
        kept = {s.name: _truncations(dictionaries[s.name], config, _ordered(s)) for s, _ in items}
        measured, histograms = _measure(config, store, hook_point, dictionaries, kept, device)
        losses = _losses(config, store, hook_point, dictionaries, model) if model else {}
        for subject, unit in items:
            row = {
                "hook_point": hook_point,
                "name": subject.name,
                "method": subject.method,
                "d_in": dictionaries[subject.name].d_in,
                "d_sae": dictionaries[subject.name].d_sae,
                "signed": dictionaries[subject.name].signed,
                **measured[subject.name],
                **losses.get(subject.name, {}),
            }
            row = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
            if not claims.still_holds(unit):
                continue
            write_results(unit.folder, row, histograms[subject.name])
            headline = {k: row[k] for k in ("l0", "fvu", "ce_score_zero") if k in row}
            unit.finish(device, time.time() - started, headline)


@torch.no_grad()
def _measure(
    config: ScoreConfig,
    store: ActivationStore,
    hook_point: str,
    dictionaries: dict[str, FeatureDictionary],
    kept: dict[str, dict[str, Truncation]],
    device: str,
) -> tuple[dict[str, dict[str, Any]], dict[str, ActivationHistogram]]:
    """Everything that held-out rows alone tell. kept: per dictionary, columns and what of a code they keep."""
    n_rows = min(config.n_rows, store.n_heldout_rows)
    mean = torch.from_numpy(store.stats(hook_point).mean)
    histograms = {name: ActivationHistogram.empty(f.d_sae) for name, f in dictionaries.items()}
    sums = {name: {column: Reconstruction(mean) for column in ("fvu", *kept[name])} for name in dictionaries}
    with progress(total=n_rows, unit="row", desc=f"score {len(dictionaries)} at {hook_point}") as bar:
        for rows in store.heldout(hook_point, n_rows):
            for x in torch.from_numpy(rows).split(config.batch_size):
                x = x.to(device).float()
                for name, dictionary in dictionaries.items():
                    z = dictionary.encode(x)
                    histograms[name].add(z)
                    sums[name]["fvu"].add(x, dictionary.decode(z))
                    for column, truncate in kept[name].items():
                        sums[name][column].add(x, dictionary.decode(truncate(z)))
                bar.update(len(x))
    rows = {}
    for name, histogram in histograms.items():
        density = histogram.density
        rows[name] = {
            "l0": histogram.mean_l0,
            "l0_p10": histogram.l0_quantile(0.1),
            "l0_p90": histogram.l0_quantile(0.9),
            "normalized_mse": sums[name]["fvu"].normalized_mse,
            **{column: total.fvu for column, total in sums[name].items()},
            "dead": int((density == 0).sum()),
            "ultra_low_density": _rare(density, config.ultra_low_density, n_rows),
            "n_rows": n_rows,
        }
    return rows, histograms


def _rare(density: torch.Tensor, below: float, n_rows: int) -> int | None:
    return int(((density > 0) & (density < below)).sum()) if below * n_rows >= 1 else None


def _truncations(dictionary: FeatureDictionary, config: ScoreConfig, ordered: bool) -> dict[str, Truncation]:
    if not dictionary.signed:
        return {}
    kept: dict[str, Truncation] = {}
    for k in config.at_l0:
        if k < dictionary.d_sae:
            kept[f"fvu_at_l0_{k}"] = lambda z, k=k: keep_largest(z, k)
            if ordered:
                kept[f"fvu_first_{k}"] = lambda z, k=k: keep_first(z, k)
    return kept


@torch.no_grad()
def _losses(
    config: ScoreConfig,
    store: ActivationStore,
    hook_point: str,
    dictionaries: dict[str, FeatureDictionary],
    model: LanguageModel,
) -> dict[str, dict[str, Any]]:
    """Cross-entropies of the held-out sequences, spliced and ablated."""
    description = store.description
    tokens = store.heldout_tokens(config.n_sequences)
    mean = torch.from_numpy(store.stats(hook_point).mean).float().to(model.device)
    edits: dict[str, Reconstruct] = {
        "zero ablation": torch.zeros_like,
        "mean ablation": lambda x: mean.expand_as(x),
        **{name: f for name, f in dictionaries.items()},
    }
    found = evaluate(model, tokens, hook_point, description.positions, edits)
    zero, mean_ablated = found.pop("zero ablation"), found.pop("mean ablation")
    n_predictions = len(tokens) * sum(p < description.context - 1 for p in description.positions)

    def row(loss: Downstream) -> dict[str, Any]:
        return {
            "ce_clean": loss.ce_clean,
            "ce": loss.ce,
            "ce_zero": zero.ce,
            "ce_mean": mean_ablated.ce,
            "ce_score_zero": ce_score(zero.ce, loss.ce, loss.ce_clean),
            "ce_score_mean": ce_score(mean_ablated.ce, loss.ce, loss.ce_clean),
            "kl": loss.kl,
            "n_predictions": n_predictions,
        }

    return {name: row(loss) for name, loss in found.items()}


def summarize(run: Path, work: list[tuple[Subject, Unit]]) -> bool:
    """Bring scores.json and the pictures up to date with the scored dictionaries. Returns whether they changed.

    They follow from the units, so they are made anew whenever the set of dictionaries is another one.
    """
    from pipeline.score import pictures

    folder = run / "score"
    inputs = digest([VERSION, [[s.hook_point, s.name, s.method, s.settings, unit.key] for s, unit in work]])
    summary = folder / "scores.json"
    if (json_object(summary) or {}).get("inputs") == inputs:
        return False
    rows, pair_rows = [], []
    for hook_point, together in groupby(work, key=lambda item: item[0].hook_point):
        items = list(together)
        histograms = {s.name: read_histogram(u.folder) for s, u in items}
        own_rows = [read_row(u.folder, s.name) for s, u in items]
        entries = [_entry(s, histograms[s.name]) for s, _ in items]
        compared = list(progress(all_pairs(entries), desc=f"pairs at {hook_point}", unit="pair"))
        rows += own_rows
        pair_rows += [{"hook_point": hook_point, **scores} for scores, _ in compared]
        pictures.draw(folder / hook_point, hook_point, own_rows, histograms, compared)
    pair_rows += _next_layers([subject for subject, _ in work])
    commit_json(summary, {"inputs": inputs, "documentation": DOCUMENTATION, "dictionaries": rows, "pairs": pair_rows})
    return True


def _next_layers(subjects: list[Subject]) -> list[dict[str, Any]]:
    """Do the axes in which a layer writes agree with those in which the next one reads, of the same method and settings?"""
    rows = []
    for a in subjects:
        alike = [b for b in subjects if (b.method, b.settings) == (a.method, a.settings) and b.output()]
        later = [b for b in alike if _layer(b) > _layer(a)]
        if later and (output := a.output()):
            b = min(later, key=_layer)
            written, read = output.load().directions, b.load().directions
            scores, _ = compare(
                Entry(output.name, a.method, a.settings, len(written), True, written),
                Entry(b.name, b.method, b.settings, len(read), True, read),
            )
            random = torch.linalg.qr(random_directions(len(read), read.shape[1], seed_of("next layer")))[0]
            floor = round(matched_cosine(written, random, signed=True), 4)
            where = f"{output.hook_point} → {b.hook_point}"
            rows.append({"hook_point": where, "relation": "next layer", **scores, "matched_floor": floor})
    return rows


def _layer(subject: Subject) -> int:
    found = re.match(r"blocks\.(\d+)\.", subject.hook_point)
    return int(found[1]) if found else -1


def _entry(subject: Subject, histogram: ActivationHistogram) -> Entry:
    dictionary = subject.load()
    alive = histogram.density > 0
    return Entry(
        subject.name,
        subject.method,
        subject.settings,
        dictionary.d_sae,
        dictionary.signed,
        dictionary.directions[alive],
    )
