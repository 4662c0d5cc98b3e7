"""Speed of training, against SAELens, sparsify and dictionary_learning, on the same rows in the same order.

    python -m scripts.bench_train [--steps 32] [--rounds 7]

Rows: the demo model's MLP activations (768 coordinates) on Python's standard library, scaled to E|x - mean|² = 768 for
all. d_in 768, d_sae 6144, k 32, batches of 4,096. Every library makes its own step (forward, loss, backward, gradient
projection, its optimiser) through its own trainer or the calls of it; they take turns step by step, so what disturbs the
machine disturbs all, and medians count. The allocator keeps what is freed, for all of them. half_dead: topk, half of its
latents dead at every step. FVU: on held-out rows, each at the better of two learning rates. A peer that is not installed is
left out (scripts/contestants.py says how to install them). Writes runs/bench/train.json.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pipeline.stages import Run, load_recipe, run_extract
from pipeline.train.loop import train
from pipeline.train.memory import keep_freed
from pipeline.train.methods import METHODS
from scripts import contestants
from scripts.bench import report, store_of_noise
from scripts.contestants import Contestant, Sizes, source_of
from stores.activations import ActivationStore
from stores.loader import BatchLoader

HOOK_POINT = "blocks.1.mlp.hook_post"
SIZES = Sizes(768, 6144, 32, 4096)
RATES = (1e-3, 3e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder))
        keep_freed()
        figures = _against_peers(store, args.steps)
        figures |= _toy(args.rounds)
        figures |= _many(store, args.rounds)
    report("train", figures)


def _store(folder: Path) -> ActivationStore:
    sets = [f'extract.hook_points=["{HOOK_POINT}"]', "extract.n_rows=200000", "extract.heldout_fraction=0.04"]
    run = Run(load_recipe("demo", sets), folder / "runs", "cpu")
    run_extract(run)
    return run.open_store()


def _against_peers(store: ActivationStore, n_steps: int) -> dict[str, float]:
    moments = store.stats(HOOK_POINT)
    source, scale = source_of(moments, HOOK_POINT), moments.scale
    heldout = torch.from_numpy(store.rows(HOOK_POINT, 0, store.n_heldout_rows, "heldout")).float()
    mean = torch.from_numpy(moments.mean * scale).float()
    ours, k = contestants.ours, SIZES.k
    makers: dict[str, Callable[[float], Contestant]] = {
        "topk": lambda lr: ours("topk", source, SIZES, k=k, lr=lr),
        "batch_topk": lambda lr: ours("batch_topk", source, SIZES, k=k, lr=lr),
        "half_dead": lambda lr: ours("topk", source, SIZES, dead=SIZES.d_sae // 2, k=k, lr=lr),
        "relu": lambda lr: ours("relu_l1", source, SIZES, lr=lr),
        "p_anneal": lambda lr: ours("p_anneal", source, SIZES, lr=lr),
        "saelens_topk": lambda lr: contestants.saelens("topk", lr, SIZES),
        "saelens_relu": lambda lr: contestants.saelens("standard", lr, SIZES),
        "sparsify_topk": lambda lr: contestants.sparsify(lr, mean, SIZES),
        "dictionary_learning_topk": lambda lr: contestants.dictionary_learning(lr, SIZES),
    }
    entered: dict[tuple[str, float], Contestant] = {}
    for (name, make), lr in itertools.product(makers.items(), RATES):
        if lr == RATES[0] or name.endswith("topk"):  # only the TopK ones are compared in FVU
            try:
                entered[name, lr] = make(lr)
            except ImportError as error:
                print(f"{name} is left out: {error}")
    seconds: dict[str, list[float]] = {name: [] for name, _ in entered}
    loader = BatchLoader(store, (HOOK_POINT,), SIZES.batch, seed=0, n_steps=n_steps)
    for batch in loader:
        raw = batch.x[HOOK_POINT].float()
        for (name, _), contestant in entered.items():
            x = raw if contestant.raw else raw * scale
            started = time.perf_counter()
            contestant.step(x, batch.step)
            if batch.step:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    fvu: dict[str, float] = {}
    for (name, lr), contestant in entered.items():
        if name.endswith("topk"):
            factor = 1.0 if contestant.raw else scale
            with torch.no_grad():
                error = torch.cat([x * factor - contestant.reconstruct(x * factor) for x in heldout.split(SIZES.batch)])
            found = float(
                error.double().square().sum() / (heldout * factor - mean * factor / scale).double().square().sum()
            )
            print(f"{name} lr {lr}: FVU {found:.4f}")
            fvu[name] = min(found, fvu.get(name, 1e9))
    figures = {f"{name}_tokens_per_s": SIZES.batch / s for name, s in median.items()}
    figures |= {f"{name}_fvu": value for name, value in fvu.items()}
    W, x16 = torch.randn(SIZES.d_sae, SIZES.d_in).to(_dtype()), torch.randn(SIZES.batch, SIZES.d_in).to(_dtype())
    times = []
    for _ in range(9):
        started = time.perf_counter()
        x16 @ W.T
        times.append(time.perf_counter() - started)
    figures["encoder_product_fraction_of_topk_step"] = statistics.median(times) / median["topk"]
    figures["half_dead_over_topk"] = median["half_dead"] / median["topk"]
    figures["load_average"] = os.getloadavg()[1]
    for peer in ("saelens", "sparsify", "dictionary_learning"):
        if f"{peer}_topk" in median:
            figures[f"topk_vs_{peer}"] = median[f"{peer}_topk"] / median["topk"]
    if "saelens_relu" in median:
        figures["relu_vs_saelens"] = median["saelens_relu"] / median["relu"]
    own = {name for (name, _), contestant in entered.items() if contestant.raw}
    if peers := [value for name, value in fvu.items() if name not in own]:
        figures["topk_fvu_over_best_peer"] = fvu["topk"] / min(peers)
    return figures


def _dtype() -> torch.dtype:
    from pipeline.train.kernels import fast_dtype

    return fast_dtype("cpu")


def _toy(rounds: int) -> dict[str, float]:
    """Sixteen dictionaries, d 64, d_sae 128, batches of 256: all at once against one after another, each as the train
    stage does it, from a store in memory, with the number of threads that suits each best."""
    hook, n_steps = "blocks.0.hook_resid_post", 200
    with tempfile.TemporaryDirectory() as folder:
        store = store_of_noise(Path(folder) / "toy.zarr", hook, 64, 32_768, 4096, 64)
        source = source_of(store.stats(hook), hook)

        def run(seeds: range) -> None:
            made = METHODS["relu_l1"]
            assert made.learner is not None
            learners = {str(s): made.learner(made.config(d_sae=128, seed=s), source, "cpu") for s in seeds}
            loader = BatchLoader(store, (hook,), 256, seed=0, n_steps=n_steps, residency="ram")
            for _ in train(learners, loader, source, n_steps):
                pass

        before, best = torch.get_num_threads(), {}
        for threads in (1, 2):
            torch.set_num_threads(threads)
            together, apart = [], []
            for _ in range(rounds):
                started = time.perf_counter()
                run(range(16))
                together.append(time.perf_counter() - started)
                started = time.perf_counter()
                for seed in range(2):  # an eighth of them
                    run(range(seed, seed + 1))
                apart.append(8 * (time.perf_counter() - started))
            for name, s in (("together", together), ("apart", apart)):
                best[name] = min(best.get(name, 1e9), statistics.median(s))
        torch.set_num_threads(before)
    return {"toy_batch_speedup": best["apart"] / best["together"], "toy_ms_per_step": 1e3 * best["together"] / n_steps}


def _many(store: ActivationStore, rounds: int) -> dict[str, float]:
    """Eight TopK dictionaries on one read of a streamed store against eight runs that each read it, of 16 steps: each of
    these fills a window of its own first, so with more steps the difference is less."""
    source, n_steps = source_of(store.stats(HOOK_POINT), HOOK_POINT), 16

    def run(seeds: range) -> None:
        made = METHODS["topk"]
        assert made.learner is not None
        loader = BatchLoader(store, (HOOK_POINT,), SIZES.batch, seed=0, n_steps=n_steps, residency="stream")
        learners = {
            str(s): made.learner(made.config(d_sae=SIZES.d_sae, k=SIZES.k, seed=s), source, "cpu") for s in seeds
        }
        for _ in train(learners, loader, source, n_steps):
            pass

    together, apart = [], []
    for _ in range(max(1, rounds // 7)):
        started = time.perf_counter()
        run(range(8))
        together.append(time.perf_counter() - started)
        started = time.perf_counter()
        for seed in range(8):
            run(range(seed, seed + 1))
        apart.append(time.perf_counter() - started)
    return {"eight_from_one_read_speedup": statistics.median(apart) / statistics.median(together)}


if __name__ == "__main__":
    main()
