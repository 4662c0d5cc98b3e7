"""Speed of training, against SAELens, sparsify and dictionary_learning, on the same rows in the same order.

    pip install -e '.[dev]'                                     # SAELens
    pip install --no-deps eai-sparsify dictionary-learning schedulefree natsort simple-parsing docstring-parser einops \
        accelerate "nnsight<0.4" && pip install python-socketio msgspec    # the others, as far as their trainers go
    python -m scripts.bench_train [--steps 32] [--rounds 7]

Rows: the demo model's MLP activations (768 coordinates) on Python's standard library, scaled to E|x - mean|² = 768 for
all. d_in 768, d_sae 6144, k 32, batches of 4,096. Every library makes its own step (forward, loss, backward, gradient
projection, its optimiser) through its own trainer or the calls of it; they take turns step by step, so what disturbs the
machine disturbs all, and medians count. The allocator keeps what is freed, for all of them. half_dead: topk, half of its
latents dead at every step. FVU: on held-out rows, each at the better of two learning rates. A peer that is not installed is
left out. Writes runs/bench/train.json.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.stages import Run, load_recipe, run_extract
from pipeline.train.learner import FamilyLearner
from pipeline.train.loop import train
from pipeline.train.memory import keep_freed
from pipeline.train.methods import METHODS
from pipeline.train.source import Source
from scripts.bench import report, store_of_noise
from stores.activations import ActivationStore
from stores.loader import BatchLoader
from stores.moments import Moments

HOOK_POINT = "blocks.1.mlp.hook_post"
D_IN, D_SAE, K, BATCH = 768, 6144, 32, 4096
RATES = (1e-3, 3e-3)
OURS = ("topk", "batch_topk", "half_dead", "relu", "p_anneal")


@dataclass
class Contestant:
    step: Callable[[Tensor, int], Any]
    reconstruct: Callable[[Tensor], Tensor]


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


def source_of(moments: Moments, hook_point: str = HOOK_POINT) -> Source:
    return Source.at(
        hook_point, moments, lambda n: torch.empty(0).numpy(), lambda n: torch.empty(0).numpy(), lambda: None
    )  # type: ignore[arg-type,return-value]


def ours(method: str, source: Source, **settings: Any) -> FamilyLearner:
    made = METHODS[method]
    assert made.learner is not None
    learner = made.learner(made.config(**settings), source, "cpu")
    assert isinstance(learner, FamilyLearner)
    return learner


def _ours(method: str, source: Source, dead: int = 0, **settings: Any) -> Contestant:
    """dead: so many of the latents are dead at every step."""
    learner = ours(method, source, d_sae=D_SAE, warmup=0, **settings)
    which = torch.randperm(D_SAE, generator=torch.Generator().manual_seed(0))[:dead]

    def step(x: Tensor, i: int) -> None:
        learner.model.tokens_since_fired[which] = 10**9
        learner.step(x, i, 10**6)

    return Contestant(step, lambda x: learner.to_dictionary({})(x))


def _saelens(architecture: str, lr: float) -> Contestant:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    if architecture == "topk":
        sae: Any = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, k=K))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE))
    config = SAETrainerConfig(10**12, BATCH, lr=lr, lr_end=lr)
    trainer = SAETrainer(config, sae, itertools.repeat(torch.empty(0)))
    return Contestant(lambda x, i: trainer.step(x), sae)


def _sparsify(lr: float, mean: Tensor) -> Contestant:
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # where Triton is installed it would be used on a CPU too, and fail
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(D_IN, SparseCoderConfig(num_latents=D_SAE, k=K))
    sae.b_dec.data = mean.clone()  # as its trainer does at its first step
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr)
    alive = torch.zeros(D_SAE, dtype=torch.bool)

    def step(x: Tensor, i: int) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x, dead_mask=alive).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()

    return Contestant(step, lambda x: sae(x).sae_out)


def _dictionary_learning(lr: float) -> Contestant:
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(10**6, D_IN, D_SAE, K, 0, "", lr=lr, warmup_steps=0, device="cpu")
    return Contestant(lambda x, i: trainer.update(i, x), trainer.ae)


def _against_peers(store: ActivationStore, n_steps: int) -> dict[str, float]:
    moments = store.stats(HOOK_POINT)
    source, scale = source_of(moments), moments.scale
    heldout = torch.from_numpy(store.rows(HOOK_POINT, 0, store.n_heldout_rows, "heldout")).float()
    mean = torch.from_numpy(moments.mean * scale).float()
    makers: dict[str, Callable[[float], Contestant]] = {
        "topk": lambda lr: _ours("topk", source, k=K, lr=lr),
        "batch_topk": lambda lr: _ours("batch_topk", source, k=K, lr=lr),
        "half_dead": lambda lr: _ours("topk", source, dead=D_SAE // 2, k=K, lr=lr),
        "relu": lambda lr: _ours("relu_l1", source, lr=lr),
        "p_anneal": lambda lr: _ours("p_anneal", source, lr=lr),
        "saelens_topk": lambda lr: _saelens("topk", lr),
        "saelens_relu": lambda lr: _saelens("standard", lr),
        "sparsify_topk": lambda lr: _sparsify(lr, mean),
        "dictionary_learning_topk": _dictionary_learning,
    }
    contestants: dict[tuple[str, float], Contestant] = {}
    for (name, make), lr in itertools.product(makers.items(), RATES):
        if lr == RATES[0] or name.endswith("topk"):  # only the TopK ones are compared in FVU
            try:
                contestants[name, lr] = make(lr)
            except ImportError as error:
                print(f"{name} is left out: {error}")
    seconds: dict[str, list[float]] = {name: [] for name, _ in contestants}
    loader = BatchLoader(store, (HOOK_POINT,), BATCH, seed=0, n_steps=n_steps)
    for batch in loader:
        raw = batch.x[HOOK_POINT].float()
        for (name, _), contestant in contestants.items():
            x = raw if name in OURS else raw * scale
            started = time.perf_counter()
            contestant.step(x, batch.step)
            if batch.step:
                seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(s) for name, s in seconds.items()}
    fvu: dict[str, float] = {}
    for (name, lr), contestant in contestants.items():
        if name.endswith("topk"):
            factor = 1.0 if name in OURS else scale
            with torch.no_grad():
                error = torch.cat([x * factor - contestant.reconstruct(x * factor) for x in heldout.split(BATCH)])
            found = float(
                error.double().square().sum() / (heldout * factor - mean * factor / scale).double().square().sum()
            )
            print(f"{name} lr {lr}: FVU {found:.4f}")
            fvu[name] = min(found, fvu.get(name, 1e9))
    figures = {f"{name}_tokens_per_s": BATCH / s for name, s in median.items()}
    figures |= {f"{name}_fvu": value for name, value in fvu.items()}
    W, x16 = torch.randn(D_SAE, D_IN).to(_dtype()), torch.randn(BATCH, D_IN).to(_dtype())
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
    if peers := [value for name, value in fvu.items() if name not in OURS]:
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
    source, n_steps = source_of(store.stats(HOOK_POINT)), 16

    def run(seeds: range) -> None:
        made = METHODS["topk"]
        assert made.learner is not None
        loader = BatchLoader(store, (HOOK_POINT,), BATCH, seed=0, n_steps=n_steps, residency="stream")
        learners = {str(s): made.learner(made.config(d_sae=D_SAE, k=K, seed=s), source, "cpu") for s in seeds}
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
