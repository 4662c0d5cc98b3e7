"""Speed and memory of scoring.

    pip install --no-deps sae-dashboard==0.8.0 eindex-callum dataclasses-json decode-clt marshmallow typing-inspect \
        mypy-extensions    # the peer, beside pip install -e '.[dev]'
    python -m scripts.bench_score [--rounds 5] [--peer-features 256]

ten_vs_one: the time of scoring ten dictionaries of one site in one pass over that of one of them: TopK, d_sae 1536, k 32, of
random weights, at the demo model's blocks.2.hook_resid_post; 20,000 held-out rows, 32 texts. The model is loaded each time, as
the command does. ten_vs_one_rows: without the cross-entropy.
mmcs_24576_s: MMCS both ways of two dictionaries of 24,576 random directions of 768 coordinates, the hardest to tell apart, with
which is nearest to which; beside it the product alone, in the type that finds candidates and in float32, block by block.
mmcs_24576_peak_MiB: how far a process that does nothing else rises above its inputs.
pages_s, pages_MB: the report of a dictionary of 1,536 features, as `unmix report` makes it with its defaults after score, and
the size of its pages. The dictionary: ReLU, random directions, each active on one row in 48.
pages_vs_sae_dashboard: SAEDashboard's time over ours, without labels, for the same features and the same held-out sequences.
It takes 256 features at a time, and is measured on the first pages_peer_features of them, times the share of the others. Ours
reads the rows from the store, the peer runs the model. It is left out where SAEDashboard is not installed.
Writes runs/bench/score.json.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.claims import Claims
from pipeline.features.config import ReportConfig
from pipeline.models.files import DEMO
from pipeline.only import Only
from pipeline.score import nearest, stage
from pipeline.score.config import ScoreConfig
from pipeline.score.losses import model_of
from pipeline.score.nearest import nearest_both_ways
from pipeline.score.subjects import Subject
from pipeline.stages import Run, load_recipe, run_extract, run_report, run_score
from pipeline.train.config import TrainConfig
from scripts.bench import medians, report
from scripts.dashboard_peer import dashboards_s
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.products import linear
from stores.site import Site
from stores.spec import Spec

N, D = 24_576, 768
D_SAE, _N_SEQUENCES = 1536, 64
HOOK_POINT = "blocks.2.hook_resid_post"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-features", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sets = [f'extract.hook_points=["{HOOK_POINT}"]', "extract.n_rows=60000", "extract.heldout_fraction=0.34"]
        run = Run(load_recipe("demo", sets), Path(folder) / "runs", "cpu")
        run_extract(run)
        figures = similarity(args.rounds) | together(Path(folder), run, args.rounds)
        report("score", figures | pages(Path(folder), run, args.peer_features))


def together(folder: Path, run: Run, rounds: int) -> dict[str, Any]:
    store, site = run.open_store(), Site.at(HOOK_POINT)
    subjects = []
    for seed in range(10):
        torch.manual_seed(seed)
        W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, store.d(HOOK_POINT)), dim=-1)
        spec = Spec("topk", store.d(HOOK_POINT), D_SAE, site, 32)
        path = folder / f"topk-s{seed}"
        FeatureDictionary(spec, W_dec.T, torch.zeros(D_SAE), W_dec, torch.zeros(spec.d_in)).save(path)
        subjects.append(Subject(site, path.name, "topk", {"seed": seed}, path))
    config = ScoreConfig(n_sequences=32)
    names = (folder / f"scored-{i}" for i in itertools.count())

    def score(n: int, model: bool) -> None:
        at = next(names)
        work = stage.units(config, at, store, subjects[:n])
        with Claims(at) as claims:
            for _ in claims.rounds([[unit for _, unit in work]]):
                stage.execute(config, store, work, "cpu", claims, lambda: model_of(store, "cpu") if model else None)
        shutil.rmtree(at)

    works = {f"{n}{rows}": partial(score, n, not rows) for n in (1, 10) for rows in ("", "_rows")}
    seconds = medians(works, rounds)
    return {
        "score_one_s": seconds["1"],
        "score_ten_s": seconds["10"],
        "ten_vs_one": seconds["10"] / seconds["1"],
        "ten_vs_one_rows": seconds["10_rows"] / seconds["1_rows"],
    }


def pages(folder: Path, run: Run, n_peer: int) -> dict[str, Any]:
    store, path = run.open_store(), folder / "relu"
    _relu(store).save(path)

    def reported(name: str, **settings: Any) -> tuple[Path, float]:
        recipe = run.recipe.model_copy(
            update={
                "train": TrainConfig(n_tokens=1, methods={"pca": [{}]}),  # there has to be one: it is not asked for
                "score": ScoreConfig(n_sequences=32, dictionaries=(str(path),)),
                "report": ReportConfig(**settings),
                "store": str(run.store_path),
            }
        )
        own = Run(recipe, folder / name, "cpu", only=Only((path.name,), "unmix status"))
        run_score(own)
        started = time.perf_counter()
        run_report(own)
        return own.folder / "report", time.perf_counter() - started

    made, seconds = reported("all")
    _, rows_alone = reported("rows", labels="", n_rows=_N_SEQUENCES * store.description.n_positions)
    figures = {
        "pages_s": seconds,
        "pages_MB": sum(file.stat().st_size for file in made.rglob("*") if file.is_file()) / 1e6,
        "pages_without_labels_s": rows_alone,
    }
    try:
        peer_s = dashboards_s(store, DEMO, path, _N_SEQUENCES, n_peer, folder / "peer.html")
    except ImportError as error:
        print(f"SAEDashboard is left out: {error}")
        return figures
    all_s = peer_s * D_SAE / n_peer
    peer = {"pages_peer_features": n_peer, "pages_peer_measured_s": peer_s, "pages_peer_s": all_s}
    return figures | peer | {"pages_vs_sae_dashboard": all_s / rows_alone}


def _relu(store: ActivationStore) -> FeatureDictionary:
    """Each feature active on one of 48 rows, of those that it is looked for on: 32 a row."""
    torch.manual_seed(0)
    d = store.d(HOOK_POINT)
    W_dec = torch.nn.functional.normalize(torch.randn(D_SAE, d), dim=-1)
    rows = torch.from_numpy(store.rows(HOOK_POINT, 0, 4096, "heldout")).float()
    b_enc = -(rows @ W_dec.T).quantile(1 - 32 / D_SAE, dim=0)
    spec = Spec("standard", d, D_SAE, Site.at(HOOK_POINT))
    return FeatureDictionary(spec, W_dec.T, b_enc, W_dec, torch.zeros(d))


def similarity(rounds: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(N, D, generator=generator), torch.randn(N, D, generator=generator)
    rough = torch.bfloat16 if nearest.native_bfloat16(a.device) else torch.float32
    halves = a.to(rough), b.to(rough)
    seconds = medians(
        {
            "mmcs": lambda: nearest_both_ways(a, b, signed=False),
            "product": lambda: _product(*halves),
            "product_float32": lambda: _product(a, b),
        },
        rounds,
    )
    code = f"from scripts.bench_score import peak_mib; print(peak_mib({N}, {D}))"
    peak = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    return {
        "mmcs_24576_s": seconds["mmcs"],
        "mmcs_24576_peak_MiB": float(peak),
        **{f"mmcs_24576_{name}_s": seconds[name] for name in ("product", "product_float32")},
        **{f"mmcs_24576_{name}_GFLOPps": 2 * N * N * D / s / 1e9 for name, s in seconds.items()},
    }


def _product(a: Tensor, b: Tensor) -> None:
    for rows in a.split(nearest.ROWS):
        for columns in b.split(nearest.COLUMNS):
            linear(rows, columns, None)


def peak_mib(n: int, d: int) -> float:
    """How far this process rises above n directions of d coordinates twice. Linux."""
    small = torch.randn(512, d)
    nearest_both_ways(small, small, signed=False)  # what the libraries hold
    a, b = torch.randn(n, d), torch.randn(n, d)
    before = _highest_mib()
    nearest_both_ways(a, b, signed=False)
    return _highest_mib() - before


def _highest_mib() -> float:
    """getrusage would count what the process that started this one held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
