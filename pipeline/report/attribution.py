"""Features as the viewers of attribution graphs read them: examples grouped by quantile, packed by layer.

layer_L.bin has one record a feature, in their order: the length of what follows as a little-endian uint32, and gzipped JSON.
index.json.gz has {"L": {"filename", "offsets"}}: feature i lies from offsets[i] to offsets[i + 1].
Source: circuit-tracer's frontend (safety-research/circuit-tracer, feature_examples), which reads features/index.json.gz.
"""

import gzip
import json
import struct
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.models.hook_points import layer_of
from pipeline.report.examples import Example, described, rounded, texts
from pipeline.score.histograms import bin_edges
from stores.manifest import commit_bytes


def write_attribution(
    folder: Path, row: Mapping[str, Any], features: pa.Table, contexts: pa.Table, tokens: Mapping[int, str]
) -> None:
    """layer_L.bin and index.json.gz. row: the dictionary's scores."""
    layer, data, offsets = max(0, layer_of(row["reads"][0])), bytearray(), [0]
    for feature in feature_jsons(row, features, contexts, tokens):
        packed = gzip.compress(json.dumps(feature, separators=(",", ":")).encode(), 6, mtime=0)
        data += struct.pack("<I", len(packed)) + packed
        offsets.append(len(data))
    name = f"layer_{layer}.bin"
    commit_bytes(folder / name, bytes(data))
    index = {str(layer): {"filename": name, "offsets": offsets}}
    commit_bytes(folder / "index.json.gz", gzip.compress(json.dumps(index).encode(), 6, mtime=0))


def feature_jsons(
    row: Mapping[str, Any], features: pa.Table, contexts: pa.Table, tokens: Mapping[int, str]
) -> Iterator[dict[str, Any]]:
    edges = [rounded(edge) for edge in bin_edges()]
    for feature, examples in described(features, contexts, tokens):
        of_groups = [list(found) for _, found in groupby(examples, key=lambda example: example.group)]
        values = [value for example in examples for value in example.activations]
        histogram = feature.get("histogram") or []
        used = [i for i, count in enumerate(histogram) if count]
        low, high = (used[0], used[-1] + 1) if used else (0, 0)
        yield {
            "transcoder_id": f"{row['site']}/{row['name']}",
            "index": feature["feature"],
            "examples_quantiles": [_quantile(found, len(of_groups) - 1) for found in of_groups],
            "top_logits": texts(feature, "promoted_tokens", tokens),
            "bottom_logits": texts(feature, "suppressed_tokens", tokens),
            "act_min": min(values, default=0.0),
            "act_max": max(values, default=0.0),
            "quantile_values": [min(example.value for example in found) for found in of_groups],
            "histogram": histogram[low:high],
            "histogram_edges": edges[low : high + 1] if used else [],
            "activation_frequency": rounded(feature["density"]),
            "label": feature.get("label"),
            "rule": feature.get("rule"),
        }


def _quantile(examples: list[Example], n_groups: int) -> dict[str, Any]:
    group = examples[0].group
    return {
        "quantile_name": "Top activations" if group == 0 else f"Quantile group {group} of {n_groups}",
        "examples": [
            {
                "tokens": example.tokens,
                "tokens_acts_list": example.activations,
                "train_token_ind": example.peak,
                "is_repeated_datapoint": False,
            }
            for example in examples
        ],
    }
