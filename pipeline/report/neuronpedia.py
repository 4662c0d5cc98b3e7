"""Features as Neuronpedia's upload reads them: the batches that SAEDashboard writes, batch-0.json and on.

Source: neuronpedia_utils' convert-saedashboard-to-neuronpedia-export, which takes these fields of each feature.
"""

import json
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.models.hook_points import layer_of
from pipeline.report.examples import Example, described, rounded, texts
from pipeline.score.histograms import bin_edges
from stores.manifest import commit_bytes

BATCH = 256
# They are there because a reader asks for them: nothing of the kind is measured.
_NOT_MEASURED = (
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
    "correlated_neurons_pearson", "correlated_neurons_l1", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
    "decoder_weights_dist",
)  # fmt: skip


def write_neuronpedia(
    folder: Path, model: str, row: Mapping[str, Any], features: pa.Table, contexts: pa.Table, tokens: Mapping[int, str]
) -> None:
    """model: its name there. row: the dictionary's scores."""
    about = {
        "model_id": model,
        "layer": max(0, layer_of(row["reads"][0])),
        "sae_set": row["name"],
        "sae_id_suffix": None,
    }
    found = described(features, contexts, tokens)
    for n in count():
        batch = [_feature(feature, examples, tokens) for feature, examples in islice(found, BATCH)]
        if not batch:
            return
        text = json.dumps(about | {"features": batch}, allow_nan=False, separators=(",", ":"))
        commit_bytes(folder / f"batch-{n}.json", text.encode())


def _feature(feature: Mapping[str, Any], examples: list[Example], tokens: Mapping[int, str]) -> dict[str, Any]:
    edges = bin_edges()
    bins = [
        (count, low, high) for count, low, high in zip(feature.get("histogram") or [], edges[:-1], edges[1:]) if count
    ]
    phi = [rounded(value) for value in feature.get("cofiring_phi") or []]
    return {
        "feature_index": feature["feature"],
        "pos_str": texts(feature, "promoted_tokens", tokens),
        "pos_values": [rounded(value) for value in feature.get("promoted_logits") or []],
        "neg_str": texts(feature, "suppressed_tokens", tokens),
        "neg_values": [rounded(value) for value in feature.get("suppressed_logits") or []],
        "frac_nonzero": rounded(feature["density"]),
        "freq_hist_data_bar_heights": [n for n, _, _ in bins],
        "freq_hist_data_bar_values": [rounded(float(np.sqrt(low * high))) for _, low, high in bins],
        "correlated_features_indices": feature.get("cofiring") or [],
        "correlated_features_pearson": phi,
        "correlated_features_l1": [0.0] * len(phi),
        "n_prompts_total": 0,
        "n_tokens_in_prompt": 0,
        "dataset": "",
        "activations": _activations(examples),
    } | {name: [] for name in _NOT_MEASURED}


def _activations(examples: list[Example]) -> list[dict[str, Any]]:
    """Of each group its bin: the largest activations have -1 to the largest, containing -1, as SAEDashboard writes them."""
    n_sampled = sum(example.group > 0 for example in examples)
    groups: dict[int, list[float]] = {}
    for example in examples:
        groups.setdefault(example.group, []).append(example.value)
    return [
        {
            "bin_min": min(groups[example.group]) if example.group else -1.0,
            "bin_max": max(groups[example.group]),
            "bin_contains": rounded(len(groups[example.group]) / n_sampled) if example.group else -1.0,
            "tokens": example.tokens,
            "values": example.activations,
            "qualifying_token_index": example.peak,
        }
        for example in examples
    ]
