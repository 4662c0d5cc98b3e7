"""What the source says of three small functions, and what decides on it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.toy.findings import Check, Claim, Estimate, exact, rate
from pipeline.toy.functions.parity import LINEAR, NEAR, SOURCE

ARTICLE = "How Tiny Neural Networks Represent Basic Functions, 2024"
AT_END = 0.01  # how near to ¼ or ½ a mean squared error counts as that of a constant output

Numbers = Mapping[str, Any]
Checks = Sequence[Check]


def ended_at(errors: Sequence[float], value: float) -> Estimate:
    """The share of networks whose error ends near a value."""
    return rate(sum(abs(e - value) <= AT_END for e in errors), len(errors))


def shape_rate(found: Mapping[str, Any], *forms: str) -> Estimate:
    """Of the networks that solve min(a, b), the share that are of these forms."""
    return rate(sum(found["forms"][form] for form in forms), found["solved"], "solved seeds")


def slope(rows: Sequence[Sequence[float]], tenfolds: float) -> float:
    """By how much M grows per factor e of steps, over the last tenfolds of training. rows: step, M, ..."""
    last = rows[-1]
    first = min(rows, key=lambda row: abs(math.log10(last[0] / row[0]) - tenfolds))
    return (last[1] - first[1]) / math.log(last[0] / first[0])


def _sharpness(numbers: Numbers) -> Checks:
    at = numbers["threshold"]["at_9.5"]
    return [
        Check("|sigmoid - .62| at 9.5 for M = 1", exact(abs(at["1"] - 0.62)), "≤", 0.005),
        Check("sigmoid at 9.5 for M = 100", exact(at["100"]), "≥", 0.999),
    ]


def _grows(numbers: Numbers) -> Checks:
    return [
        Check(f"{name}: M at the end, over M at a tenth of the steps", exact(ratio, f"{rows[-1][0]:g} steps"), "≥", 1.05)
        for name, rows in numbers["threshold"]["trained"].items()
        for ratio in [rows[-1][1] / min(rows, key=lambda row: abs(row[0] - rows[-1][0] / 10))[1]]
    ]  # fmt: skip


def _at_ten(numbers: Numbers) -> Checks:
    return [
        Check(f"{name}: |threshold - 10| at the end", exact(abs(rows[-1][2] - 10), f"{rows[-1][0]:g} steps"), "≤", 0.1)
        for name, rows in numbers["threshold"]["trained"].items()
    ]


def _logarithm(numbers: Numbers) -> Checks:
    rows = numbers["threshold"]["trained"]["gradient flow"]
    off = abs(slope(rows, 3) / 2 - 1)
    return [
        Check(
            "growth of M per factor e of steps over the last thousandfold, off 2 by a part of", exact(off), "≤", 0.05
        ),
        Check("|threshold - 9.5| at the end", exact(abs(rows[-1][2] - 9.5), f"{rows[-1][0]:g} steps"), "≤", 0.01),
    ]


def _never_zero(numbers: Numbers) -> Checks:
    rows = [row for rows in numbers["threshold"]["trained"].values() for row in rows]
    return [
        Check("smallest loss over its lower bound at that M", exact(min(r[3] / r[4] for r in rows)), "≥", 1.0),
        Check("smallest lower bound", exact(min(r[4] for r in rows)), "≥", 1e-300),
    ]


def _exact_forms(numbers: Numbers) -> Checks:
    rows = numbers["minimum"]["exact"]
    return [
        Check("largest error of a - ReLU(a - b), wired, on all pairs", exact(rows[0][1]), "≤", 1e-9),
        Check("ReLUs that it has less than Equation 1", exact(rows[2][2] - rows[0][2]), "≥", 1),
    ]


def _solves(numbers: Numbers) -> Checks:
    found = numbers["minimum"]
    return [Check("nets that are right on all 10,000 pairs, rounded", rate(found["solved"], found["n"]), "≥", 0.9)]


def _short(numbers: Numbers) -> Checks:
    found = numbers["minimum"]
    return [
        Check("solved nets that are a - ReLU(a - b) or its mirror", shape_rate(found, "short", "mirror"), "≥", 0.5),
        Check("solved nets that are Equation 1", shape_rate(found, "symmetric"), "≤", 0.25),
    ]


def _wide(numbers: Numbers) -> Checks:
    return [
        Check(f"{name}: solved nets that are a - ReLU(a - b) or its mirror", shape_rate(found, "short", "mirror"), "≥", 0.5)
        for name, found in numbers["minimum_width"].items()
        if name != "1 hidden"  # one unit can be nothing else
    ]  # fmt: skip


def _decayed(numbers: Numbers) -> Checks:
    return [
        Check(f"{name}: solved nets that are Equation 1", shape_rate(found, "symmetric"), "≤", 0.25)
        for name, found in numbers["minimum_decay"].items()
    ]


def _no_skip(numbers: Numbers) -> Checks:
    found = numbers["square"]
    return [Check("nets without the skip that solve it", rate(found["solved"], found["n"]), "≥", 0.5)]


def _carries(numbers: Numbers) -> Checks:
    found = numbers["square"]
    carried = rate(found["carries"], found["solved"], "solved seeds")
    return [
        Check("solved nets of which one unit bends along a = b and the other is on all over the square", carried, "≥", 0.9)
    ]  # fmt: skip


def _zeroed(numbers: Numbers) -> Checks:
    source = numbers["minimum"]
    checks = [
        Check(
            "no weight decay: solved nets that use one of the two units alone",
            rate(source["one_used"], source["solved"], "solved seeds"), "≥", 0.5,
        )
    ]  # fmt: skip
    for name, found in {"no weight decay": source, **numbers["minimum_decay"]}.items():
        printed = rate(found["printed"], found["solved"], "solved seeds")
        checks.append(
            Check(f"{name}: solved nets in which all of the other unit's weights are 0.00", printed, "≥", 0.5)
        )
    return checks


def _family(numbers: Numbers) -> Checks:
    rows = numbers["minimum"]["exact"]
    off = max(abs(bend - 1) for bend in numbers["minimum"]["bend"]) if numbers["minimum"]["bend"] else math.nan
    return [
        Check("largest error of the wired forms, λ in 0 … 1", exact(max(row[1] for row in rows)), "≤", 1e-9),
        Check("largest |bend along a = b, less 1| in a net that solves it", exact(off), "≤", 0.1),
    ]


def _side(numbers: Numbers) -> Checks:
    same, opposite = (numbers["minimum"]["by_side"][side] for side in ("same", "opposite"))
    short = "solved nets that are the short form or its mirror, of those whose units begin on"
    return [
        Check(f"{short} the same side", rate(same[0], same[1], "solved seeds"), "≥", 0.9),
        Check(f"{short} opposite sides", rate(opposite[0], opposite[1], "solved seeds"), "≤", 0.1),
    ]


def _perfect(numbers: Numbers) -> Checks:
    right, n = numbers["parity"]["inside"]
    return [Check("integers 0 … 15 that it gets wrong", exact(n - right, f"{n} integers"), "≤", 0)]


def _beyond(numbers: Numbers) -> Checks:
    right, n = numbers["parity"]["beyond"]
    return [Check("right of -100 … -1 and 16 … 115", rate(right, n, "integers"), "≤", 0.1)]


def _local_minimum(numbers: Numbers) -> Checks:
    found = numbers["parity_source"]
    checks = []
    for name in (SOURCE, LINEAR):
        errors = found[name]["error"]
        checks += [
            Check(f"{name}: runs that solve it", rate(sum(found[name]["right"]), len(errors)), "≤", 0.1),
            Check(f"{name}: runs that end at the mean (.25)", ended_at(errors, 0.25), "≥", 0.5),
        ]
    return checks


def _silent(numbers: Numbers) -> Checks:
    found = numbers["parity_source"]
    return [
        Check(f"{SOURCE}: runs that end silent (.5)", ended_at(found[SOURCE]["error"], 0.5), "≥", 0.25),
        Check(f"{LINEAR}: runs that end silent (.5)", ended_at(found[LINEAR]["error"], 0.5), "≤", 0.05),
    ]


def _ways(numbers: Numbers) -> Checks:
    ways = {**numbers["parity_learning"], **numbers["parity_wide"]}
    return [
        Check(f"{name}: runs that solve it", rate(sum(w["right"]), len(w["right"])), "≥", 0.5)
        for name, w in ways.items()
        if name != NEAR
    ]


def _stays(numbers: Numbers) -> Checks:
    way = numbers["parity_learning"][NEAR]
    before, after = (np.array(way[key], dtype=bool) for key in ("right_before", "right"))
    stayed = rate(int((before & after).sum()), int(before.sum()), "such seeds")
    return [Check("nets right before training, ± .01 of the wired weights, that are right after it", stayed, "≥", 0.9)]


def _necessary(numbers: Numbers) -> Checks:
    return [
        Check(f"consecutive integers that {name} can tell at most, over all weights", exact(most), "≤", 2 ** (n_relus + 1) - 1)
        for n_relus, most in numbers["parity"]["told"]
        for name in ["one ReLU" if n_relus == 1 else f"{n_relus} ReLUs"]
    ]  # fmt: skip


def _pieces(numbers: Numbers) -> Checks:
    table = numbers["parity"]["table"]
    drawn = max(row["random_pieces"] / 2 ** row["n"] for row in table if row["random_pieces"] is not None)
    by_hand = max(row["chain_pieces"] / 2 ** row["n"] for row in table)
    return [
        Check("pieces of random nets of n ReLUs, the most over 2ⁿ", exact(drawn), "≤", 1),
        Check("pieces of the wired nets of n ReLUs, the most over 2ⁿ", exact(by_hand), "≤", 1),
    ]


def _sufficient(numbers: Numbers) -> Checks:
    table = numbers["parity"]["table"]
    chain = min(row["chain_right"] / 2 ** row["n"] for row in table)
    return [
        Check("ReLUs of the article's net over n, the least", exact(min(r["relus"] / r["n"] for r in table)), "≤", 1),
        Check("integers that n ReLUs with skips get right, the least over 2ⁿ", exact(chain), "≥", 1),
    ]


CLAIMS = (
    Claim("sharpness", ARTICLE, "A larger M brings sigmoid(M (10 - x)) nearer to 1 at 9.5.", _sharpness,
          ".62 at M = 1, about 1 at M = 100"),
    Claim("grows", ARTICLE, "M keeps growing during training.", _grows),
    Claim("at-ten", ARTICLE, "Training converges to sigmoid(M (10 - x)), with its threshold at 10.", _at_ten),
    Claim("logarithm", "Soudry et al. 2018",
          "Gradient descent on separable data: the weights grow as the logarithm of the steps, along the largest margin; here "
          "M grows by 2 per factor e, and the threshold goes to 9.5.", _logarithm),
    Claim("never-zero", ARTICLE, "The loss of x < 10 never gets to 0.", _never_zero),
    Claim("formula", ARTICLE, "a - ReLU(a - b) is min(a, b), and cleaner than Equation 1.", _exact_forms),
    Claim("solves", ARTICLE, "300 epochs are enough to learn min(a, b).", _solves),
    Claim("short", ARTICLE, "Training finds a - ReLU(a - b), not Equation 1.", _short, "a - 1.41 · .71 ReLU(a - b), one run"),
    Claim("wide", "question of this toy", "Do nets of 4 and 8 hidden units find a - ReLU(a - b) too, or its mirror?", _wide),
    Claim("decayed", "question of this toy", "Is Equation 1 as rare under weight decay?", _decayed),
    Claim("no-skip", "question of this toy",
          "Does a net of two hidden units learn min(a, b) on the unit square when its output does not read a and b?", _no_skip),
    Claim("carries", "question of this toy",
          "Is what such a net learns a - ReLU(a - b), with one of the numbers carried by the other unit?", _carries),
    Claim("zeroed", ARTICLE, "The other hidden unit's weights go to zero.", _zeroed, "0.00, one run"),
    Claim("family", "derived", "Every λ gives an exact form, and what is learned is one of them.", _family),
    Claim("side", "question of this toy",
          "Do the signs of the two units at the beginning settle which form is learned?", _side),
    Claim("perfect", ARTICLE, "Five folds wired by hand tell the parity of 0 … 15.", _perfect, "perfect on [0, 15]"),
    Claim("beyond", ARTICLE, "The wired net does not generalise beyond its range.", _beyond),
    Claim("local-minimum", ARTICLE, "Trained, the same net is stuck at predicting the mean.", _local_minimum, "one run"),
    Claim("silent", "question of this toy", "Is it the ReLU after the output that leaves runs silent?", _silent),
    Claim("ways", "question of this toy", "Do other ways of training, or a wider net, learn parity in most runs?", _ways),
    Claim("stays", "question of this toy", "Does training that begins at the wired solution stay there?", _stays),
    Claim("necessary", ARTICLE, "Parity on 2ⁿ integers takes at least n ReLUs; here n = 2 and 3.", _necessary),
    Claim("pieces", "derived", "n ReLUs have at most 2ⁿ pieces; here those of nets drawn at random and wired.", _pieces),
    Claim("sufficient", ARTICLE, "n neurons are enough for 2ⁿ integers.", _sufficient, "n + 2 counted, |x - i| as one"),
)  # fmt: skip
