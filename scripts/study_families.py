"""What families find of known features, at the true L0, beside SAELens's same families on the same rows.

    python -m scripts.study_families [--setting correlated hierarchy] [--families topk relu_l1 …] [--seeds 3] [--steps 4000]

Rows: scripts/synthetic.py, each seen once, batches of 256, the same in the same order for both libraries. As many features
as there are true ones (--width for more). Each library with its own defaults; SAELens at its default rate of 3e-4, and at
the best of three, chosen on the first seed by the matched cosine itself, which no user could do: the choice favours it. Where
there is no k and no l0_target, the coefficient is searched until L0 is within 3% of the truth, in whole trainings. Measures
are of 16,384 held-out rows. Prints a table in Markdown, means over seeds and largest less smallest, and writes
runs/bench/families.json.

A training takes 5 to 20 s of one core. Three seeds of ten families: about half an hour for the correlated setting and an hour
for the hierarchy, nine tenths of it SAELens's, whose coefficients and rates are searched; --alone leaves it out.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.train.methods import METHODS
from pipeline.train.source import Source
from scripts.at_l0 import at_l0
from scripts.bench import report
from scripts.saelens_peer import ARCHITECTURES, COEFFICIENT, DEFAULT_RATE, RATES, settings_of, train_peer
from scripts.synthetic import SETTINGS, D, heldout_codes, source_of, training_rows, truth_of
from scripts.trained import Trained, families, recovered, sparsity_key, train_ours

BATCH, N_HELD = 256, 16_384
_NEAR = 0.1  # how far off the L0 may be, in parts, for a rate to count as the best of three, if any comes as near
COLUMNS = ("l0", "fvu", "dead", "matched", "mmcs", "f1", "seconds")
Measures = dict[str, float]


@dataclass(frozen=True)
class Rows:
    """One seed of a setting: batches of training rows, and the truth of held-out ones."""

    source: Source
    batches: tuple[Tensor, ...]
    F: Tensor
    strengths: Tensor
    d_sae: int
    seed: int

    @property
    def l0(self) -> float:
        return float((self.strengths > 0).sum(1).double().mean())

    @classmethod
    def of(cls, setting: str, seed: int, n_steps: int, width: float) -> "Rows":
        truth = truth_of(setting, seed)
        x = training_rows(truth, n_steps * BATCH)
        d_sae = round(width * len(truth.F))
        return cls(source_of(x), x.split(BATCH), truth.F, heldout_codes(truth, N_HELD), d_sae, seed)

    def measured(self, trained: Trained) -> Measures:
        return {**recovered(trained, self.F, self.strengths), "seconds": trained.seconds}


class Search:
    """Trainings at the L0 of the truth. A search begins at the coefficient that the one before it, of the same name,
    ended at: those of other seeds are near."""

    def __init__(self) -> None:
        self.coefficients: dict[str, float] = {}

    def at(self, name: str, run: Callable[[float], Measures], l0: float, first: float) -> Measures:
        start = self.coefficients.get(name, first)
        best, tries = at_l0(run, lambda m: m["l0"], l0, start)
        self.coefficients[name] = best
        return dict(tries)[best]


def ours(search: Search, method: str, rows: Rows, given: Mapping[str, float], bisect: bool) -> Measures:
    def run(changes: dict[str, Any]) -> Measures:
        settings = {"d_sae": rows.d_sae, "seed": rows.seed, **given, **changes}
        return rows.measured(train_ours(method, settings, rows.source, rows.batches))

    key = sparsity_key(method, bisect)
    if key == "k":
        return run({"k": round(rows.l0)})
    if key == "l0_target":
        return run({"l0_target": rows.l0})
    default = METHODS[method].config.model_fields[key].default or 1.0
    return search.at(method, lambda c: run({key: c}), rows.l0, default)


def theirs(search: Search, method: str, rows: Rows, lr: float) -> Measures:
    architecture, scale = ARCHITECTURES[method], rows.source.reads.common_scale

    def run(coefficient: float | None) -> Measures:
        settings = settings_of(architecture, rows.l0, rows.d_sae, coefficient)
        trained = train_peer(
            architecture, settings, rows.batches, n_steps=len(rows.batches), batch_size=BATCH, d_in=D,
            d_sae=rows.d_sae, scale=scale, lr=lr, seed=rows.seed,
        )  # fmt: skip
        return rows.measured(trained)

    if architecture not in COEFFICIENT:
        return run(None)
    return search.at(f"saelens {method} {lr:g}", run, rows.l0, 1.0)


def contest(
    method: str, seeds: list[Rows], given: Mapping[str, float], bisect: bool, peer: bool
) -> dict[str, list[Measures]]:
    """{library: measures of each seed}. The peer at its default rate, and, where another is better on the first seed, at
    that too."""
    search = Search()
    found = {"ours": [ours(search, method, rows, given, bisect) for rows in seeds]}
    if not peer or method not in ARCHITECTURES:
        return found
    first = {lr: theirs(search, method, seeds[0], lr) for lr in RATES}
    near = [lr for lr in RATES if abs(first[lr]["l0"] / seeds[0].l0 - 1) < _NEAR] or RATES
    for lr in dict.fromkeys((DEFAULT_RATE, max(near, key=lambda lr: first[lr]["matched"]))):
        others = [theirs(search, method, rows, lr) for rows in seeds[1:]]
        found[f"SAELens, lr {lr:g}"] = [first[lr], *others]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--families", nargs="+", choices=families(), default=families())
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--width", type=float, default=1.0, help="features of a dictionary for each true one")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=NUMBER", help="settings of ours, beside the defaults"
    )
    parser.add_argument("--bisect", action="store_true", help="search the coefficient even where there is an l0_target")
    parser.add_argument("--alone", action="store_true", help="without SAELens")
    args = parser.parse_args()
    given = {key: float(value) for key, value in (pair.split("=") for pair in args.set)}
    torch.set_num_threads(1)  # matrices this small are slower on two
    figures: dict[str, Any] = {"n_steps": args.steps, "batch": BATCH, "seeds": args.seeds, "width": args.width, **given}
    for setting in args.setting:
        seeds = [Rows.of(setting, seed, args.steps, args.width) for seed in range(args.seeds)]
        G, l0 = len(seeds[0].F), statistics.mean(rows.l0 for rows in seeds)
        figures[f"{setting} l0"] = l0
        print(f"\n{setting}: {G} features in {D} dimensions, L0 {l0:.2f}, d_sae {seeds[0].d_sae}, {args.steps} steps\n")
        print(f"| family | library | {' | '.join(COLUMNS)} | spread of matched, f1 |")
        print("|---" * (len(COLUMNS) + 3) + "|")
        for method in args.families:
            started = time.perf_counter()
            for library, measures in contest(method, seeds, given, args.bisect, not args.alone).items():
                mean = {c: statistics.mean(m[c] for m in measures) for c in COLUMNS}
                spread = {c: max(m[c] for m in measures) - min(m[c] for m in measures) for c in ("matched", "f1")}
                cells = " | ".join(f"{mean[c]:.3f}" for c in COLUMNS)
                print(f"| {method} | {library} | {cells} | {spread['matched']:.3f}, {spread['f1']:.3f} |", flush=True)
                figures |= {f"{setting} {method} {library} {c}": value for c, value in mean.items()}
                figures |= {f"{setting} {method} {library} spread of {c}": value for c, value in spread.items()}
            figures[f"{setting} {method} all trainings, seconds"] = time.perf_counter() - started
    print()
    report("families", figures)


if __name__ == "__main__":
    main()
