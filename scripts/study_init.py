"""Steps to reach a given reconstruction by how a dictionary begins.

    python -m scripts.study_init [--steps 300] [--d-sae 1536] [--rates 1e-3 4e-3]

TopK, k 32, on the demo model's residual stream (192 coordinates) and MLP (768) on Python's standard library, batches of
1,024, constant rate, one seed, encoder rows of norm 0.5 where nothing else is said; each at the better of the rates. FVU:
on 8,192 held-out rows, every ten steps. Prints a table in Markdown and writes runs/bench/init.json.
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.stages import Run, load_recipe, run_extract
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.learner import FamilyLearner
from pipeline.train.stage import source_of_store
from scripts.bench import report
from stores.loader import BatchLoader
from stores.site import Site

HOOK_POINTS = ("blocks.2.hook_resid_post", "blocks.1.mlp.hook_post")
BATCH, EVERY = 1024, 10
BEGINNINGS: dict[str, dict] = {
    "random, norm 1": {"init_norm": 1.0},
    "random": {},
    "random, norm 0.25": {"init_norm": 0.25},
    "orthogonal": {"init": "orthogonal"},
    "data": {"init": "data"},
    "pca": {"init": "pca"},
    "writer": {"init": "writer"},
    "privileged": {"init": "privileged"},
    "random, geometric median": {"b_dec_init": "geometric_median"},
}


def fvu_on(x: Tensor, learner: FamilyLearner) -> float:
    """Of x (n, d), raw activations."""
    dictionary = learner.to_dictionary({})
    return float((x - dictionary(x)).square().sum() / (x - x.mean(0)).square().sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--d-sae", type=int, default=1536)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 4e-3])
    args = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(load_recipe("demo", [f"extract.hook_points={list(HOOK_POINTS)}"]), Path(folder), "cpu")
        run_extract(run)
        store = run.open_store()
        weights = partial(load_model, ModelFiles.of_store(store.description))
        for hook_point in store.hook_points:
            source = source_of_store(run.recipe.train, store, Site.at(hook_point), weights)
            heldout = torch.from_numpy(np.concatenate(list(store.heldout(hook_point, 8192)))).float()
            fvu: dict[str, list[float]] = {}
            for name, settings in BEGINNINGS.items():
                for lr in args.rates:
                    config = TopKConfig(d_sae=args.d_sae, lr=lr, warmup=0, decay=0, **settings)
                    learner = FamilyLearner(TopK, config, source, "cpu")
                    loader = BatchLoader(store, (hook_point,), BATCH, seed=0, n_steps=args.steps)
                    curve = []
                    for batch in loader:
                        learner.step(batch.x[hook_point].float(), batch.step, args.steps)
                        if (batch.step + 1) % EVERY == 0:
                            curve.append(fvu_on(heldout, learner))
                    if name not in fvu or curve[-1] < fvu[name][-1]:
                        fvu[name] = curve
            target = fvu["random, norm 1"][-1]
            print(
                f"\n{hook_point}, d_sae {args.d_sae}\n\n| beginning | FVU after {args.steps} steps | steps to {target:.3f} |"
            )
            print("|---|---|---|")
            for name, curve in fvu.items():
                reached = next((EVERY * (i + 1) for i, value in enumerate(curve) if value <= target), None)
                print(f"| {name} | {curve[-1]:.3f} | {reached or f'> {args.steps}'} |", flush=True)
                figures[f"{hook_point} {name} fvu"] = curve[-1]
                figures[f"{hook_point} {name} steps"] = reached or float("inf")
    report("init", figures)


if __name__ == "__main__":
    main()
