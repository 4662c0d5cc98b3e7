"""The data of one dictionary's page: what its list shows of all features, and in parts what a feature's own view shows."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.report.columns import encoded, lengths, numbers, steps

PART = 256  # features whose views are one data file: about 1.3 MB with 45 contexts of 21 tokens each
N_TOKENS = 3  # of those at which a feature is most active, in the list
LISTED = ("density", "n_active", "max", "label", "label_auroc", "label_f1", "rule", "rule_f1",
          "promoted_tokens")  # fmt: skip
VIEWED = ("mean", "decoder_norm", "encoder_norm", "promoted_logits", "suppressed_tokens", "suppressed_logits",
          "neighbours", "neighbour_cosines", "elsewhere_dictionary", "elsewhere_feature", "elsewhere_cosine", "cofiring",
          "cofiring_phi", "histogram", "rule_precision", "rule_recall", "rule_share")  # fmt: skip


def listed(features: pa.Table, contexts: pa.Table) -> dict[str, Any]:
    """The columns of the list. nearest and nearest_cosine: the first of the neighbours. active_at: see below."""
    columns = {name: encoded(_column(features, name)) for name in LISTED} | {
        "active_at": active_at(contexts, len(features))
    }
    for name, of in (("nearest", "neighbours"), ("nearest_cosine", "neighbour_cosines")):
        columns[name] = encoded(_first(_column(features, of)))
    return columns


def active_at(contexts: pa.Table, d_sae: int) -> dict[str, Any]:
    """Of each feature the first N_TOKENS different tokens at which it is most active. contexts: sorted by feature and group."""
    tokens = contexts["tokens"].combine_chunks()
    offsets = np.cumsum(lengths(tokens)) - lengths(tokens)
    peak = offsets + contexts["position"].to_numpy() - contexts["start"].to_numpy()
    strongest = contexts["group"].to_numpy() == 0
    found = tokens.flatten().to_numpy(zero_copy_only=False)[peak[strongest]]
    both = np.stack([contexts["feature"].to_numpy()[strongest], found], 1)
    both = both[np.sort(np.unique(both, axis=0, return_index=True)[1])]
    owner = both[:, 0]
    kept = both[np.arange(len(both)) - np.searchsorted(owner, owner) < N_TOKENS]
    return {"t": "list", "n": numbers(np.bincount(kept[:, 0], minlength=d_sae)), "v": numbers(kept[:, 1])}


def parts(features: pa.Table, contexts: pa.Table) -> Iterator[dict[str, Any]]:
    """Of PART features after the other. contexts: sorted by feature."""
    owner = contexts["feature"].to_numpy()
    for start in range(0, len(features), PART):
        stop = min(start + PART, len(features))
        low, high = np.searchsorted(owner, [start, stop])
        part: dict[str, Any] = {name: encoded(_column(features.slice(start, stop - start), name)) for name in VIEWED}
        part["start"] = start
        part["contexts"] = _contexts(contexts.slice(low, high - low), start, stop)
        yield part


def _contexts(contexts: pa.Table, start: int, stop: int) -> dict[str, Any]:
    """n: contexts of each feature. Activations are steps of each feature's scale: see columns.steps."""
    owner = contexts["feature"].to_numpy() - start
    activations = contexts["activations"].combine_chunks()
    values = activations.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    of_value = np.repeat(owner, lengths(activations))
    scale = np.zeros(stop - start)
    np.maximum.at(scale, of_value, np.nan_to_num(np.abs(values), nan=0.0, posinf=0.0))
    found = {name: encoded(contexts[name]) for name in ("group", "value", "sequence", "position", "start", "tokens")}
    return {
        **found,
        "n": numbers(np.bincount(owner, minlength=stop - start)),
        "scale": numbers(scale),
        "steps": numbers(steps(values, scale[of_value])),
    }


def _column(table: pa.Table, name: str) -> pa.Array:
    """A column that is not there is null."""
    if name not in table.column_names:
        return pa.nulls(len(table), pa.list_(pa.float32()) if _is_list(name) else pa.float32())
    return table[name].combine_chunks()


def _is_list(name: str) -> bool:
    return name == "histogram" or name.split("_")[0] in (
        "promoted", "suppressed", "neighbours", "neighbour", "elsewhere", "cofiring"
    )  # fmt: skip


def _first(column: pa.Array) -> pa.Array:
    """The first of each list; null where it is empty."""
    n = lengths(column)
    values = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
    first = np.full(len(column), np.nan)
    first[n > 0] = values[(np.cumsum(n) - n)[n > 0]]
    return pa.array(first)
