"""A scored run with described features, as its stages write it: every number planted, tokens as hostile as they come."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.score.histograms import N_BINS

SITE = "blocks.1.hook_resid_post"
HOSTILE = [
    "<script>document.title='executed'</script>", "</script><script>document.title='executed'</script>", "&amp;", "\ud800",
    "\n", "\0", "\u202e", "<img src=x onerror=\"document.title='executed'\">", "'\"`${document.title='executed'}", "\u2028",
]  # fmt: skip
WORDS = ["def", " return", "self", " =", "(", "):", "\n    ", " import", " x", "0", " None", ".join", " #", '"', " in"]
LABELS = ["keyword", "operator", "number", "in a string", "argument"]


def tokens(n: int) -> dict[str, str]:
    """The first ones are hostile."""
    return {str(i): HOSTILE[i] if i < len(HOSTILE) else f"{WORDS[i % len(WORDS)]}{i // 15 or ''}" for i in range(n)}


def row(name: str, d_sae: int, **more: Any) -> dict[str, Any]:
    """A row of scores.json."""
    sparse = not name.startswith("neuron")
    given = {
        "site": SITE, "reads": [SITE], "writes": [SITE], "name": name, "method": name.split("-")[0], "d_in": 16, "d_out": 16,
        "d_sae": d_sae, "signed": not sparse, "sparse": sparse, "l0": 8.0 if sparse else 16.0, "l0_p10": 8, "l0_p90": 8,
        "normalized_mse": 0.02, "fvu": 0.05 if sparse else 0.0, "dead": 1, "ultra_low_density": 0, "n_rows": 10_000,
        "warnings": [], "ce_clean": 2.6, "ce": 2.8, "ce_zero": 11.0, "ce_mean": 7.0, "ce_score_zero": 0.98,
        "ce_score_mean": 0.97, "kl": 0.17, "top1": 0.79, "n_predictions": 5_000,
    }  # fmt: skip
    return given | ({} if sparse else {"fvu_at_l0_8": 0.75, "fvu_at_l0_4": 0.85}) | more


def pair(a: str, b: str, mmcs: float, relation: str = "seed") -> dict[str, Any]:
    return {
        "site": SITE, "relation": relation, "a": a, "b": b, "mmcs": mmcs, "random_floor": 0.2, "fraction_above_0.9": 0.1,
        "n_alive_a": 20, "n_alive_b": 20, "signed": False, "matched_cosine": mmcs,
    }  # fmt: skip


def features(d_sae: int, n_tokens: int) -> pa.Table:
    """Feature i: density (i + 1) / 4 d_sae, but 0 for the last; label i % 5 with F1 falling; promotes token i first."""
    i, rng = np.arange(d_sae), np.random.default_rng(0)
    dead = i == d_sae - 1
    ids = (i[:, None] + np.arange(10)) % n_tokens
    near = (i[:, None] + np.arange(1, 6)) % d_sae
    histogram = np.zeros((d_sae, N_BINS), np.int64)
    histogram[:, 36:44] = rng.integers(1, 500, (d_sae, 8)) * ~dead[:, None]
    logits = np.tile(np.linspace(2, 1, 10, dtype=np.float32), (d_sae, 1))
    cosines = np.tile(np.linspace(0.9, 0.5, 5, dtype=np.float32), (d_sae, 1))
    floats = lambda values: pa.array(np.asarray(values, np.float32), mask=dead)  # noqa: E731
    return pa.table({
        "feature": pa.array(i, pa.int32()), "density": pa.array(((i + 1) / (4 * d_sae) * ~dead).astype(np.float32)),
        "n_active": pa.array(histogram.sum(1)), "max": floats(1 + i / 10), "mean": floats(0.5 + i / 20),
        "decoder_norm": floats(np.ones(d_sae)), "encoder_norm": floats(np.full(d_sae, 0.7)),
        "promoted_tokens": lists(ids, pa.int32()), "promoted_logits": lists(logits),
        "suppressed_tokens": lists(ids[:, ::-1], pa.int32()), "suppressed_logits": lists(-logits),
        "neighbours": lists(near, pa.int32()), "neighbour_cosines": lists(cosines),
        "cofiring": lists(near[:, ::-1], pa.int32()), "cofiring_phi": lists(cosines), "histogram": lists(histogram, pa.int64()),
        "label": pa.array([None if dead[k] else LABELS[k % 5] for k in i]), "label_auroc": floats(np.full(d_sae, 0.97)),
        "label_f1": floats(1 / (1 + i / d_sae)),
        "rule": pa.array([f"token == <b>{k % 40}</b> & in a string" if k % 3 == 0 else None for k in i]),
        "rule_precision": floats(np.full(d_sae, 0.9)), "rule_recall": floats(np.full(d_sae, 0.8)),
        "rule_f1": floats(np.where(i % 3 == 0, 0.85, np.nan)), "rule_share": floats(np.full(d_sae, 0.6)),
    })  # fmt: skip


def lists(values: np.ndarray, of: pa.DataType | None = None) -> pa.ListArray:
    offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
    return pa.ListArray.from_arrays(offsets, pa.array(values.ravel(), of))


def contexts(d_sae: int, n_tokens: int, top: int = 3, groups: int = 2, each: int = 2, window: int = 21) -> pa.Table:
    """Of every feature but the last. The token at the peak is the feature's own, and of a window the first has no
    activation."""
    n = top + groups * each
    owner = np.repeat(np.arange(d_sae - 1), n)
    group = np.tile(np.repeat(np.arange(groups + 1), [top, *[each] * groups]), d_sae - 1)
    rng, peak = np.random.default_rng(1), window // 2
    value = (1 + owner / 10) * (1 - 0.9 * np.tile(np.arange(n), d_sae - 1) / n)
    ids = rng.integers(0, n_tokens, (len(owner), window))
    ids[:, peak] = owner % n_tokens
    activations = (rng.random(ids.shape) < 0.2) * rng.random(ids.shape) * value[:, None]
    activations[:, peak] = value
    mask = np.zeros(ids.shape, bool)
    mask[:, 0] = True
    flat = pa.array(activations.ravel().astype(np.float32), mask=mask.ravel())
    offsets = np.arange(len(owner) + 1, dtype=np.int32) * window
    return pa.table({
        "feature": pa.array(owner, pa.int32()), "group": pa.array(group, pa.int8()), "value": value.astype(np.float32),
        "sequence": rng.integers(0, 100, len(owner)).astype(np.int32), "position": np.full(len(owner), 20, np.int32),
        "start": np.full(len(owner), 20 - peak, np.int32), "tokens": lists(ids, pa.int32()),
        "activations": pa.ListArray.from_arrays(offsets, flat),
    })  # fmt: skip


def probes(f1: float) -> pa.Table:
    n = len(LABELS)
    columns = {"label": LABELS, "n_positive": list(range(100, 100 + n))}
    for k in (1, 2, 5):
        columns |= {f"auroc_{k}": [0.9] * n, f"f1_{k}": [f1 - 0.01 * i for i in range(n)]}
        columns[f"features_{k}"] = [list(range(i, i + k)) for i in range(n)]
    for of, value in (("all", 0.99), ("shuffled", 0.21)):
        columns |= {f"auroc_{of}": [value] * n, f"f1_{of}": [value] * n}
    return pa.table(columns)


def elsewhere(d_sae: int, others: list[str]) -> pa.Table:
    i = np.arange(d_sae)[:, None]
    return pa.table({
        "elsewhere_dictionary": lists(np.tile(np.array(others, object), (d_sae, 1)), pa.string()),
        "elsewhere_feature": lists(np.tile(i, (1, len(others))), pa.int32()),
        "elsewhere_cosine": lists(np.full((d_sae, len(others)), 0.8, np.float32)),
    })  # fmt: skip


def write_dictionary(
    folder: Path, d_sae: int, others: list[str], n_tokens: int, f1: float = 0.95, **sizes: int
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(features(d_sae, n_tokens), folder / "features.parquet")
    others_file = folder.parent.parent / "elsewhere" / SITE / f"{folder.name}.parquet"
    others_file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(elsewhere(d_sae, others), others_file)
    pq.write_table(contexts(d_sae, n_tokens, **sizes), folder / "contexts.parquet")
    pq.write_table(probes(f1), folder / "probes.parquet")


def group(name: str, names: list[str], **more: Any) -> dict[str, Any]:
    """Of scores.json."""
    given = {
        "site": SITE,
        "name": name,
        "method": name.split("-")[0],
        "names": names,
        "n": len(names),
        "exact": False,
        "control": None,
        "controls": [],
    }
    return given | more


def seeds(name: str, counts: tuple[int, ...], **more: Any) -> list[dict[str, Any]]:
    """A row for each count of labels."""
    return [row(f"{name}-s{seed}", 64, labels_found=found, **more) for seed, found in enumerate(counts)]


def beside_a_control(
    name: str, ours: tuple[int, ...], control: str, theirs: tuple[int, ...]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(rows, groups) of a dictionary and of its twin with a frozen decoder, by the labels that each seed finds."""
    rows = seeds(name, ours) + seeds(control, theirs)
    groups = [
        group(name, [f"{name}-s{seed}" for seed in range(len(ours))], controls=[control]),
        group(control, [f"{control}-s{seed}" for seed in range(len(theirs))], control="frozen decoder"),
    ]
    return rows, groups


def comparison(
    relation: str, a: str, b: str, difference: float, low: float | None, high: float | None
) -> dict[str, Any]:
    """In FVU."""
    found = {"site": SITE, "score": "fvu", "relation": relation, "a": a, "b": b, "difference": difference}
    return found | {"low": low, "high": high, "apart": low is not None and low > 0}


def write_run(
    folder: Path, rows: list[dict[str, Any]], pairs: list[dict[str, Any]], n_tokens: int = 60, **more: Any
) -> None:
    """scores.json, with more in it, and tokens.json."""
    scores = {"inputs": "0", "documentation": {"l0": "mean number of active features a token"}, "dictionaries": rows,
              "sets": [], "pairs": pairs, **more}  # fmt: skip
    for path, value in (
        (folder / "score" / "scores.json", scores),
        (folder / "features" / "tokens.json", tokens(n_tokens)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


def small_run(folder: Path) -> Path:
    """Two seeds of topk with 300 and 40 features, a ReLU-L1 without described features, the neurons."""
    names = ["topk-d300-k8-s0", "topk-d300-k8-s1"]
    relu = "relu_l1-d300-l0_8.0-s0"
    marked = row(relu, 300, fvu=0.07, l0=8.4, warnings=["30% of features are <i>dead</i>"])
    rows = [row(names[0], 300), row(names[1], 300, fvu=0.052), marked, row("neuron_basis", 16)]
    pairs = [pair(a, b, 0.7) for a in names for b in names if a != b] + [pair(names[0], relu, 0.4, "method")]
    scores = {"fvu": {"mean": 0.051, "std": 0.0014, "low": 0.04, "high": 0.06}}
    groups = [group("topk-d300-k8", names, d_sae=300, scores=scores), group(relu, [relu], d_sae=300)]
    groups.append(group("neuron_basis", ["neuron_basis"], exact=True, d_sae=16))
    behind = comparison("next", "topk-d300-k8", relu, 0.019, None, None)
    write_run(folder, rows, pairs, groups=groups, comparisons=[behind])
    for name in names:
        write_dictionary(folder / "features" / SITE / name, 300, [n for n in names if n != name] + [relu], 60)
    write_dictionary(folder / "features" / SITE / "neuron_basis", 16, names, 60, f1=0.5)
    return folder
