"""What is exported is what was planted."""

import csv
import gzip
import json
import struct
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.report.export import write_export
from tests.pipeline.report import made

NAME = "topk-d300-k8-s0"


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(made.small_run(tmp_path_factory.mktemp("runs") / "small"), model="gpt2-small")


def packed(folder: Path, layer: str, feature: int) -> dict[str, Any]:
    """As a viewer reads one: bytes from offset to the next offset and one more, since HTTP's ranges include their end."""
    index = json.loads(gzip.decompress((folder / "index.json.gz").read_bytes()))[layer]
    data = (folder / index["filename"]).read_bytes()[index["offsets"][feature] : index["offsets"][feature + 1] + 1]
    (n_bytes,) = struct.unpack("<I", data[:4])
    return json.loads(gzip.decompress(data[4 : 4 + n_bytes]))


def test_every_table_is_there_as_parquet_and_csv(export: Path) -> None:
    n_rows = {"dictionaries": 4, "pairs": 3, "features": 300 + 300 + 16, "probes": 15}
    assert {file.stem for file in (export / "tables").iterdir()} == set(n_rows)
    for name, n in n_rows.items():
        table = pq.read_table(export / "tables" / f"{name}.parquet")
        with (export / "tables" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(table) == len(rows) == n
        assert list(rows[0]) == table.column_names


def test_a_row_of_a_table_has_its_place_and_its_numbers(export: Path) -> None:
    table = pq.read_table(export / "tables" / "features.parquet").to_pylist()
    assert (table[7]["site"], table[7]["dictionary"], table[7]["feature"]) == (made.SITE, NAME, 7)
    with (export / "tables" / "features.csv").open(newline="") as file:
        row = list(csv.DictReader(file))[7]
    assert json.loads(row["promoted_tokens"]) == table[7]["promoted_tokens"] == list(range(7, 17))
    assert float(row["density"]) == pytest.approx(8 / 1200)


def test_attribution_viewers_find_a_feature_by_its_offset(export: Path) -> None:
    feature = packed(export / made.SITE / NAME / "features", "1", 20)
    assert feature["index"] == 20
    assert (feature["act_min"], feature["act_max"]) == (0.0, 3.0)
    values = [3.0 * (1 - 0.9 * place / 7) for place in (2, 4, 6)]  # the smallest of each group
    assert feature["quantile_values"] == pytest.approx(values, abs=1e-4)
    top, *groups = feature["examples_quantiles"]
    assert [one["quantile_name"] for one in (top, *groups)] == [
        "Top activations", "Quantile group 1 of 2", "Quantile group 2 of 2",
    ]  # fmt: skip
    assert [len(one["examples"]) for one in (top, *groups)] == [3, 2, 2]
    example = top["examples"][0]
    assert len(example["tokens"]) == len(example["tokens_acts_list"]) == 21
    assert example["tokens_acts_list"][example["train_token_ind"]] == 3.0
    assert example["tokens"][example["train_token_ind"]] == feature["top_logits"][0] == made.tokens(60)["20"]
    assert feature["bottom_logits"] == feature["top_logits"][::-1]
    assert len(feature["histogram"]) + 1 == len(feature["histogram_edges"])


def test_a_dead_feature_has_no_examples(export: Path) -> None:
    feature = packed(export / made.SITE / NAME / "features", "1", 299)
    assert (feature["examples_quantiles"], feature["act_min"], feature["act_max"]) == ([], 0.0, 0.0)
    assert feature["activation_frequency"] == 0.0


def test_neuronpedia_gets_every_feature_with_what_its_converter_asks_for(export: Path) -> None:
    batches = [
        json.loads((export / made.SITE / NAME / "neuronpedia" / f"batch-{i}.json").read_bytes()) for i in range(2)
    ]
    assert [batch["model_id"] for batch in batches] == ["gpt2-small"] * 2
    assert [batch["layer"] for batch in batches] == [1, 1]
    features = [feature for batch in batches for feature in batch["features"]]
    assert [feature["feature_index"] for feature in features] == list(range(300))
    asked = {
        "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
        "correlated_neurons_pearson", "correlated_neurons_l1", "correlated_features_indices", "correlated_features_pearson",
        "correlated_features_l1", "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero",
        "freq_hist_data_bar_heights", "freq_hist_data_bar_values", "logits_hist_data_bar_heights",
        "logits_hist_data_bar_values", "decoder_weights_dist", "activations", "n_prompts_total", "n_tokens_in_prompt",
        "dataset",
    }  # fmt: skip
    for feature in features:
        assert feature.keys() >= asked
        for a, b in (("pos_str", "pos_values"), ("neg_str", "neg_values"),
                     ("freq_hist_data_bar_heights", "freq_hist_data_bar_values"),
                     ("correlated_features_indices", "correlated_features_pearson")):  # fmt: skip
            assert len(feature[a]) == len(feature[b])
    bins = [(one["bin_min"], one["bin_max"], one["bin_contains"]) for one in features[20]["activations"]]
    assert bins[:3] == [(-1.0, 3.0, -1.0)] * 3
    assert [contains for _, _, contains in bins[3:]] == [0.5] * 4
    assert features[20]["activations"][0]["values"][features[20]["activations"][0]["qualifying_token_index"]] == 3.0


def test_a_lone_surrogate_is_a_replacement_character_and_all_other_text_is_kept(export: Path) -> None:
    features = export / made.SITE / NAME / "features"
    shown = [packed(features, "1", feature)["top_logits"][0] for feature in range(len(made.HOSTILE))]
    assert shown == [text.replace("\ud800", "\ufffd") for text in made.HOSTILE]
