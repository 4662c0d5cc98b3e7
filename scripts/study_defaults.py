"""Reconstruction at equal L0 by each family's settings, one changed at a time, beside SAELens's defaults.

    python scripts/make_demo_model.py --out runs/second-model --d-model 64 --layers 2 --batch 8 \\
        --text stdlib --tokens 3_000_000
    python -m scripts.study_defaults [--d 64] [--families topk relu_l1 …] [--tokens 300_000] [--l0 16] [--full | --defaults]
        [--alone | --rates 3e-4 …]

Stores, kept in runs/study, of which every row is seen once: d 64, the second model's residual stream; d 192 and 768,
the demo model's residual stream and MLP. Changed: the lengths at the beginning (init_norm), the rate, the warm-up of
the penalty's coefficient; with --full every combination, with --defaults nothing. A family with an l0_target is given
it; of another with a penalty, or of all with --bisect, the coefficient is searched, in whole trainings, and FVU at
the target is on a line in log L0 between the nearest two. An L0 over 5% off the target has no FVU. Seeds learn
together, in one product where they are small. SAELens on the same rows: at its default rate and two others. FVU, L0
and dead features are of 8,192 held-out rows of all texts. Prints a table in Markdown and writes
runs/bench/defaults_D.json.

About four seconds a training of 293 steps at d 64, eight at 192, forty at 768, of one core: five minutes for ten families at
64, and as long again for SAELens.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.stages import Run, load_recipe, run_extract
from pipeline.train.loop import train
from pipeline.train.methods import METHODS
from pipeline.train.source import Source
from pipeline.train.stage import source_of_store
from scripts.at_l0 import at_l0, interpolated
from scripts.bench import report
from scripts.saelens_peer import ARCHITECTURES, COEFFICIENT, DEFAULT_RATE, RATES, settings_of, train_peer
from scripts.trained import families, kept, learner_of, of_ours, sparsity_key
from stores.activations import ActivationStore
from stores.loader import BatchLoader
from stores.site import Site

N_HELD = 8192
SECOND_MODEL = "runs/second-model"
PLACES = {  # d → model, hook point, d_sae
    64: (SECOND_MODEL, "blocks.1.hook_resid_post", 512),
    192: ("demo", "blocks.2.hook_resid_post", 768),
    768: ("demo", "blocks.1.mlp.hook_post", 1536),
}
INIT_NORMS = (1.0, 0.5, 0.25, 0.1)
LRS = (3e-3, 6e-3, 1.8e-2)
WARMUPS = (0.0, 0.1, 0.3)
OTHERS: dict[str, dict[str, tuple[Any, ...]]] = {  # of one family alone
    "jumprelu": {"threshold": (0.1, 0.4, 0.8), "bandwidth": (0.4, 0.8, 1.2, 3.2)},
}
_TOLERANCE = 0.05  # of a search: FVU is interpolated
Measures = dict[str, float]


@dataclass(frozen=True)
class Task:
    """One store's hook point, and what every dictionary there has in common."""

    store: ActivationStore
    hook_point: str
    source: Source
    heldout: Tensor
    d_sae: int
    n_steps: int
    l0: float
    n_seeds: int
    batch: int
    bisect: bool

    @classmethod
    def of(cls, d: int, n_tokens: int, l0: float, n_seeds: int, batch: int, bisect: bool) -> "Task":
        model, hook_point, d_sae = PLACES[d]
        sets = [
            f'extract.model="{model}"',
            f'extract.hook_points=["{hook_point}"]',
            f"extract.n_rows={n_tokens * 8 // 7}",
        ]
        run = Run(load_recipe("demo", sets), Path(f"runs/study/d{d}-{n_tokens}"), "cpu")
        run_extract(run)
        store = run.open_store()
        weights = partial(load_model, ModelFiles.of_store(store.description))
        source = source_of_store(run.recipe.train, store, Site.at(hook_point), weights)
        rows = np.concatenate(list(store.heldout(hook_point, store.n_heldout_rows)))
        heldout = torch.from_numpy(rows[:: max(1, len(rows) // N_HELD)]).float()  # texts differ: of all of them
        return cls(store, hook_point, source, heldout, d_sae, n_tokens // batch, l0, n_seeds, batch, bisect)

    def loader(self) -> BatchLoader:
        return BatchLoader(self.store, (self.hook_point,), self.batch, seed=0, n_steps=self.n_steps)

    def rows(self) -> Iterator[Tensor]:
        return (batch.x[self.hook_point].float() for batch in self.loader())


def changes(method: str, full: bool) -> list[dict[str, Any]]:
    """Settings beside the defaults, which come first; warm-ups only of a family that has one."""
    fields = METHODS[method].config.model_fields
    warmup = next((key for key in fields if key.endswith("_warmup")), None)
    of: dict[str, tuple[Any, ...]] = {"init_norm": INIT_NORMS, "lr": LRS} | ({warmup: WARMUPS} if warmup else {})
    of |= OTHERS.get(method, {})
    of = {key: tuple(v for v in values if v != fields[key].default) for key, values in of.items() if key in fields}
    if not full:
        return [{}, *({key: value} for key, values in of.items() for value in values)]
    every = itertools.product(*([None, *values] for values in of.values()))
    return [{key: value for key, value in zip(of, one, strict=True) if value is not None} for one in every]


def together(task: Task, method: str, settings: list[dict[str, Any]]) -> list[Measures]:
    """Dictionaries that learn from one read of the store."""
    learners = {str(i): learner_of(method, {"d_sae": task.d_sae, **own}, task.source) for i, own in enumerate(settings)}
    for _ in train(learners, task.loader(), task.source, task.n_steps):
        pass
    return [kept(of_ours(learner, 0.0), task.heldout) for learner in learners.values()]


def ours(task: Task, method: str, change: dict[str, Any], start: float) -> tuple[Measures, float]:
    """Measures at the target, and the coefficient that is nearest to it; the search for it begins at start."""
    key = sparsity_key(method, task.bisect)

    def run(value: float) -> list[Measures]:
        return together(task, method, [{key: value, "seed": seed, **change} for seed in range(task.n_seeds)])

    if key in ("k", "l0_target"):
        return at_target([run(round(task.l0) if key == "k" else task.l0)], task.l0, key != "k"), start
    nearest, tries = at_l0(run, lambda seeds: float(np.mean([m["l0"] for m in seeds])), task.l0, start, _TOLERANCE)
    return at_target([seeds for _, seeds in tries], task.l0, may_miss=True), nearest


def at_target(tries: list[list[Measures]], l0: float, may_miss: bool) -> Measures:
    """FVU at the target, mean over seeds and largest less smallest; L0 and dead features of the try that is nearest to it.
    tries: measures of each seed. may_miss: FVU is not a number where no try is at the target or on its other side; else, of
    a k, the one try's own FVU is taken."""
    nearest = min(tries, key=lambda seeds: abs(np.mean([np.log(max(m["l0"], 1e-3) / l0) for m in seeds])))
    fvu = [m["fvu"] for m in nearest]
    if may_miss:
        of_seeds = zip(*tries, strict=True)
        fvu = [interpolated([(m["l0"], m["fvu"]) for m in own], l0, _TOLERANCE) for own in of_seeds]
    means = {key: float(np.mean([m[key] for m in nearest])) for key in ("l0", "dead")}
    return {"fvu": float(np.mean(fvu)), "spread": max(fvu) - min(fvu), **means}


def theirs(task: Task, method: str, lr: float) -> Measures:
    architecture, scale = ARCHITECTURES[method], task.source.reads.common_scale

    def run(coefficient: float | None) -> Measures:
        settings = settings_of(architecture, task.l0, task.d_sae, coefficient)
        trained = train_peer(
            architecture, settings, task.rows(), n_steps=task.n_steps, batch_size=task.batch, d_in=task.source.reads.d,
            d_sae=task.d_sae, scale=scale, lr=lr, seed=0,
        )  # fmt: skip
        return kept(trained, task.heldout)

    if architecture not in COEFFICIENT:
        return at_target([[run(None)]], task.l0, may_miss=False)
    _, tries = at_l0(run, lambda m: m["l0"], task.l0, 1.0, _TOLERANCE)
    return at_target([[m] for _, m in tries], task.l0, may_miss=True)


def line(figures: dict[str, Any], method: str, name: str, measure: Callable[[], Measures]) -> Measures:
    """A line of the table: measured, printed and kept."""
    started = time.perf_counter()
    found = measure()
    seconds = time.perf_counter() - started
    cells = " | ".join(f"{found[key]:.4f}" for key in ("fvu", "spread", "l0", "dead"))
    print(f"| {method} | {name} | {cells} | {seconds:.1f} |", flush=True)
    figures |= {
        f"{method} {name} {key}": None if math.isnan(value) else value
        for key, value in {**found, "seconds": seconds}.items()
    }
    return found


def study(task: Task, method: str, changed: list[dict[str, Any]], rates: Sequence[float]) -> dict[str, Any]:
    """changed: settings of ours beside the defaults; rates: of the peer."""
    figures: dict[str, Any] = {}
    key = sparsity_key(method, task.bisect)
    start = (METHODS[method].config.model_fields[key].default if key.endswith("coefficient") else 0.0) or 1.0

    def measured(change: dict[str, Any]) -> Measures:
        nonlocal start  # the next search begins where this one ended, if it ended at the target
        found, nearest = ours(task, method, change, start)
        start = start if math.isnan(found["fvu"]) else nearest
        return found

    for change in changed:
        name = ", ".join(f"{key} {value:g}" for key, value in change.items()) or "defaults"
        line(figures, method, name, lambda change=change: measured(change))
    if method in ARCHITECTURES:
        for lr in rates:
            name = f"SAELens, lr {lr:g}" + (" (its default)" if lr == DEFAULT_RATE else "")
            line(figures, method, name, lambda lr=lr: theirs(task, method, lr))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--d", type=int, choices=PLACES, default=64)
    parser.add_argument("--families", nargs="+", choices=families(), default=families())
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--l0", type=float, default=16.0)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seeds", type=int, default=1)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--full", action="store_true", help="every combination of the settings")
    which.add_argument("--defaults", action="store_true", help="the default settings alone")
    parser.add_argument("--bisect", action="store_true", help="search the coefficient even where there is an l0_target")
    peer = parser.add_mutually_exclusive_group()
    peer.add_argument("--alone", action="store_true", help="without SAELens")
    peer.add_argument("--rates", nargs="+", type=float, default=RATES, help="SAELens's")
    args = parser.parse_args()
    if PLACES[args.d][0] == SECOND_MODEL and not Path(SECOND_MODEL).is_dir():
        parser.error(f"{SECOND_MODEL} is not there: make it by the first command of scripts/study_defaults.py")
    task = Task.of(args.d, args.tokens, args.l0, args.seeds, args.batch, args.bisect)
    print(
        f"\n{task.store.description.model}, {task.hook_point}, d {args.d}, d_sae {task.d_sae}, {task.n_steps} steps\n"
    )
    print(f"| family | settings | FVU at L0 {args.l0:g} | spread of {args.seeds} seeds | L0 | dead | seconds |")
    print("|---" * 7 + "|")
    figures: dict[str, Any] = {
        "d": args.d,
        "d_sae": task.d_sae,
        "n_steps": task.n_steps,
        "batch": args.batch,
        "l0": args.l0,
    }
    for method in args.families:
        changed = [{}] if args.defaults else changes(method, args.full)
        figures |= study(task, method, changed, () if args.alone else args.rates)
    print()
    report(f"defaults_{args.d}", figures)


if __name__ == "__main__":
    main()
