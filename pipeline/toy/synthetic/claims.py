"""What Sharkey, Braun, Millidge 2022 and the discussion of it say, and what decides on it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Claim, Estimate, difference, exact, mean, rate
from pipeline.toy.synthetic import gathered
from pipeline.toy.synthetic.beginnings import OWN
from pipeline.toy.synthetic.coefficients import FOUND
from pipeline.toy.synthetic.gathered import Numbers, cell, naturals, seeds
from pipeline.toy.synthetic.generator import CHANGES
from pipeline.toy.synthetic.natural import KINDS
from pipeline.toy.synthetic.table import WINDOW

SHARKEY = "Sharkey et al. 2022"
DISCUSSION = "Sharkey et al. 2022, discussion"
QUESTION = "question of this toy"
KNOWN = "known answers at d = 64, G = 128, 4,000 steps"
_TABLE = 0.03  # of MMCS: .986 is known where .95 has to be reached
_MATTERS = 0.05  # of what is recovered above chance
_FASTER = 0.1  # of the steps
_ALIKE = 0.9  # rank correlation


def _answers(numbers: Numbers) -> Sequence[Check]:
    what = "MMCS of the truth at d_sae = {}, alpha = {}"
    return [
        Check(what.format(128, 0.3), mean(cell(numbers, 128, 0.3, "mmcs")), "≥", 0.95),
        Check(what.format(256, 1), mean(cell(numbers, 256, 1.0, "mmcs")), "≥", 0.97),
        Check(what.format(128, 3), mean(cell(numbers, 128, 3.0, "mmcs")), "≤", 0.45),
    ]


def _dead(numbers: Numbers) -> Sequence[Check]:
    checks = []
    for alpha, known, margin in ((1.0, 27, 15), (3.0, 129, 20)):
        found = mean(cell(numbers, 256, alpha, "dead"))
        checks += [
            Check(f"dead features at d_sae = 256, alpha = {alpha:g}", found, "≥", known - margin),
            Check("the same", found, "≤", known + margin),
        ]
    return checks


def _pca(numbers: Numbers) -> Sequence[Check]:
    found = mean([one["pca"]["mmcs"] for one in seeds(numbers, "table")])
    return [Check("MMCS of PCA, by |cosine|", found, "≥", 0.35), Check("the same", found, "≤", 0.41)]


def _ridge(numbers: Numbers) -> Sequence[Check]:
    best = [np.argmax(rows, axis=1) for rows in gathered.cells(numbers, "mmcs")]
    rises = sum(bool((np.diff(one) >= 0).all()) for one in best)
    what = "seeds in which no size has a smaller best alpha than the next smaller size"
    return [Check(what, rate(rises, len(best)), "≥", 0.5)]


def _larger(numbers: Numbers) -> Sequence[Check]:
    alike, same = [], []
    for one in seeds(numbers, "table"):
        rows = one["cells"][:-1]
        truth, larger = ([[c[key] for c in row] for row in rows] for key in ("mmcs", "larger"))
        alike.append(gathered.ranks_alike(np.ravel(truth), np.ravel(larger)))
        same.append(np.mean(np.argmax(truth, axis=1) == np.argmax(larger, axis=1)))
    most = rate(sum(bool(share > 0.5) for share in same), len(same))
    return [
        Check("rank correlation of MMCS with the next larger and with the truth over the table", mean(alike), "≥", 0.7),
        Check("seeds in which the best alpha of most sizes is the same by both", most, "≥", 0.5),
    ]


def _middling(numbers: Numbers, all_somewhat: bool) -> Sequence[Check]:
    checks = []
    for side, by_seed in gathered.middling(numbers).items():
        if all_somewhat:
            between = mean([float(np.mean([1 - c["found"] - c["absent"] for c in cells])) for cells in by_seed])
            checks.append(Check(f"features that are neither found nor absent, share, at {side}", between, "≥", 0.5))
        else:
            for key, word in (("found", f"found (cosine > {FOUND})"), ("absent", "absent (no nearer than chance)")):
                share = mean([float(np.mean([c[key] for c in cells])) for cells in by_seed])
                checks.append(Check(f"features {word}, share, at {side}", share, "≥", 0.2))
    return checks


def _undertrained(numbers: Numbers) -> Sequence[Check]:
    tables = seeds(numbers, "table")
    sizes, alphas, best = tables[0]["d_sae"], tables[0]["alpha"], gathered.best_alphas(numbers)
    small, large = max(0, len(sizes) - 3), len(sizes) - 1  # the truth's size, and four times as many

    def steps(i: int, alpha: float) -> list[float]:
        return [gathered.converged(t["cells"][i][alphas.index(alpha)]["curve"], t["steps"]) for t in tables]

    checks = []
    for what, alpha in (("at the best alpha of each", best[large]), (f"both at alpha = {best[small]:g}", best[small])):
        more = [b / a - 1 for a, b in zip(steps(small, best[small]), steps(large, alpha), strict=True)]
        checks.append(
            Check(f"steps that {sizes[large]} take more than {sizes[small]}, share, {what}", mean(more), "≥", _FASTER)
        )
    return checks


def _jumps(numbers: Numbers) -> Sequence[Check]:
    tables = seeds(numbers, "table")
    i = max(0, len(tables[0]["d_sae"]) - 3)
    j = tables[0]["alpha"].index(gathered.best_alphas(numbers)[i])
    shares = gathered.medians([one["cells"][i][j]["jumps"]["share"] for one in tables])
    d_sae = tables[0]["d_sae"][i]
    what = f"median feature's largest part of its rise within {100 * WINDOW:g}% of training, d_sae = {d_sae}"
    return [Check(what, mean(shares), "≥", 0.5)]


def _change(numbers: Numbers, name: str) -> Sequence[Check]:
    found = seeds(numbers, "changed")
    checks = []
    for i, (d_sae, alpha) in enumerate(found[0]["at"]):
        moved = difference(
            [one["changes"][name]["cells"][i]["mmcs"] for one in found],
            [one["changes"]["none"]["cells"][i]["mmcs"] for one in found],
        )
        sign = "down" if moved.value < 0 else "up"
        checks.append(
            Check(f"MMCS moved {sign} at d_sae = {d_sae}, alpha = {alpha:g}", gathered.size(moved), "≤", _TABLE)
        )
    return checks


def _nearest(numbers: Numbers, kind: str) -> Sequence[Check]:
    first = naturals(numbers)[0]
    what = f"mean |cosine| of a feature with its nearest, G/d = {first['ratio']}"
    return [Check(what, mean(first[kind]["nearest"]), "≥", 0.95)]


def _harder(numbers: Numbers) -> Sequence[Check]:
    first, *_, last = naturals(numbers)
    n_families = len(gathered.of_families(first, KINDS[0], 0))
    return [
        Check(
            f"recovered above chance at G/d = {first['ratio']} less at {last['ratio']}, {kind} directions, {who}",
            difference(gathered.recovery(first, kind, best), gathered.recovery(last, kind, best)), "≥", 0.1,
        )
        for best, who in ((False, "mean of the families"), (True, f"best of {n_families}, picked per seed"))
        for kind in KINDS
    ]  # fmt: skip


def _natural(numbers: Numbers) -> Sequence[Check]:
    checks = []
    for part in naturals(numbers):
        gap = difference(gathered.recovery(part, "trained"), gathered.recovery(part, "random"))
        which = "trained" if gap.value > 0 else "random"
        what = f"recovered above chance more of {which} directions, G/d = {part['ratio']}, mean of the families"
        checks.append(Check(what, gathered.size(gap), "≤", _MATTERS))
    return checks


def _family_order(numbers: Numbers) -> Sequence[Check]:
    parts, alike = naturals(numbers), []
    for seed in range(len(parts[0]["kept"])):
        pairs = [[[f["mmcs"] for f in gathered.of_families(part, kind, seed)] for kind in KINDS] for part in parts]
        alike.append(float(np.mean([gathered.ranks_alike(*pair) for pair in pairs])))
    what = "rank correlation of the families' MMCS on trained and on random directions, mean of the ratios"
    return [Check(what, mean(alike), "≥", 0.7)]


def _faster(numbers: Numbers, features: str, start: str, than: str) -> Sequence[Check]:
    what = f"steps to the MMCS that both reach saved against {than}, share"
    return [Check(what, gathered.saved(numbers, features, start, than), "≥", _FASTER)]


def _coefficients(numbers: Numbers) -> Sequence[Check]:
    checks = []
    for key, sign, word in (
        ("correlation", 1, "the codes' correlation with the strengths"),
        ("error_scaled", -1, "the strengths' error after the best scale"),
        ("error", -1, "the strengths' error as they are"),
    ):
        table, family = [], []
        for one in seeds(numbers, "table"):
            cells = [c for row in one["cells"] for c in row]
            table.append(gathered.ranks_alike([c["mmcs"] for c in cells], [sign * c[key] for c in cells]))
        parts = naturals(numbers)
        for seed in range(len(parts[0]["kept"])):
            sets = [gathered.of_families(part, kind, seed) for part in parts for kind in KINDS]
            alike = [gathered.ranks_alike([c["mmcs"] for c in own], [sign * c[key] for c in own]) for own in sets]
            family.append(float(np.mean(alike)))
        checks += [
            Check(f"rank correlation of MMCS and {word}, sizes and penalties", mean(table), "≥", _ALIKE),
            Check("the same, families, mean of the ratios and directions", mean(family), "≥", _ALIKE),
        ]
    return checks


def _real(numbers: Numbers) -> Sequence[Check]:
    rows: Mapping[str, Any] = numbers["real"]["rows"]
    toy, post = rows["toy"], next(row for name, row in rows.items() if name != "toy")
    of = f"{post['n']:,} rows"

    def ratio(a: float, b: float) -> Estimate:
        return exact(a / b, of)

    return [
        Check(
            "MLP activations' kurtosis along neurons over that along random axes",
            ratio(post["kurtosis"], post["kurtosis_random"]), "≥", 1.5,
        ),
        Check(
            "share of dimensions that carry the variance, the toy's over the MLP's",
            ratio(toy["participation"], post["participation"]), "≥", 2,
        ),
        Check(
            "spread of the rows' norms, the MLP's over the toy's",
            ratio(post["norm_spread"], toy["norm_spread"]), "≥", 1.5,
        ),
    ]  # fmt: skip


def _changes() -> list[Claim]:
    claims = []
    for i, name in enumerate(list(CHANGES)[1:]):
        says = f"Is MMCS the same where the generator does this as the code of {SHARKEY}: {name}?"
        claims.append(Claim(f"generator-{i}", QUESTION, says, partial(_change, name=name)))
    return claims


def _start(name: str, says: str, features: str, start: str, than: str) -> Claim:
    return Claim(name, DISCUSSION, says, partial(_faster, features=features, start=start, than=than))


CLAIMS = (
    Claim("known", KNOWN, "The source's autoencoder finds the features at the right size and penalty, and not where the "
          "penalty is too strong.", _answers, "MMCS .986 at (128, .3), .994 at (256, 1), .336 at (128, 3)"),
    Claim("dead", KNOWN, "A strong penalty kills features.", _dead, "at d_sae = 256 about 27 at alpha = 1, 129 at 3"),
    Claim("pca", KNOWN, "PCA does not find the features.", _pca, "MMCS .38"),
    Claim("ridge", SHARKEY, "The best penalty does not fall as the dictionary grows.", _ridge),
    Claim("larger", SHARKEY, "MMCS with the next larger dictionary, for which no truth is needed, finds the same ridge.",
          _larger),
    Claim("all-somewhat", DISCUSSION, "Where MMCS is middling, are all features somewhat represented?",
          partial(_middling, all_somewhat=True)),
    Claim("some-a-lot", DISCUSSION, "Where MMCS is middling, are some features represented a lot and some not at all?",
          partial(_middling, all_somewhat=False)),
    Claim("undertrained", DISCUSSION, "Larger dictionaries take longer to converge.", _undertrained),
    Claim("phase-transitions", DISCUSSION, "Clean features develop in phase transitions over the course of training.",
          _jumps),
    *_changes(),
    Claim("antipodal-trained", DISCUSSION, "With two features a dimension one gets mostly antipodal pairs: with a trained "
          "encoder.", partial(_nearest, kind="trained")),
    Claim("antipodal-random", DISCUSSION, "With two features a dimension one gets mostly antipodal pairs: in the source's "
          "own data, which are random directions.", partial(_nearest, kind="random")),
    Claim("interference", DISCUSSION, "Two features a dimension are a favourable ratio: strongly interfering superposition "
          "is harder.", _harder),
    Claim("natural", DISCUSSION, "Is as much recovered of features that a trained encoder put into superposition as of "
          "features in random directions?", _natural),
    Claim("natural-order", QUESTION, "Do families that do well on random directions do well on a trained encoder's?",
          _family_order),
    _start("orthogonal", "Orthogonal initialisation helps things learn faster.", "random", f"orthogonal{OWN}",
           f"random{OWN}"),
    _start("pca-like", "A PCA-like initialisation is better than an orthogonal one.", "random", "pca", "orthogonal"),
    _start("singular-vectors", "Noised left singular vectors of the writing matrix are a better initialisation than an "
           "orthogonal one.", "random", "writer", "orthogonal"),
    _start("unit-vectors", "Where the features lie near the axes, noised unit vectors are a better initialisation than an "
           "orthogonal one.", "axes", "privileged", "orthogonal"),
    Claim("coefficients", QUESTION, "With the scale in the coefficients, do coefficients rank the dictionaries as MMCS does?",
          _coefficients),
    Claim("real", DISCUSSION, "The distribution of real MLP activations shows where the toy's assumptions fall short.",
          _real),
)  # fmt: skip
