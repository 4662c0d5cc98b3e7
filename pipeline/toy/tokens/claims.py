"""What the source says of its eight tokens, and what decides on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.toy.findings import Check, Claim, difference, exact, mean, rate
from pipeline.toy.tokens.eight import ALL, READINGS
from pipeline.toy.tokens.experiment import NO_PENALTY, PENALTY, UNTRAINED

ARTICLE = "Xiang 2025, Sparse AutoEncoder"
DERIVED, QUESTION = "derived", "question of this toy"
MOST = 0.5  # what is true of most runs
FEW = 0.1  # what is true of few
GAIN = 0.05  # a difference of shares that somebody would notice

Numbers = Mapping[str, Any]
Checks = Sequence[Check]


def reading_rate(found: Mapping[str, Any], name: str, what: str = "seeds"):
    return rate(sum(found[name]), len(found[name]), what)


def best_cell(numbers: Numbers, name: str) -> tuple[int, int, str]:
    """Where in the grid a reading is commonest among trained runs with a penalty: count, seeds, and the setting in words."""
    cells = [
        (cell[name], grid["n"], f"{grid['d_sae']} latents, w = {w}, {step} steps")
        for grid in numbers.values()
        if "cells" in grid
        for step, row in grid["cells"].items()
        for w, cell in row.items()
        if step != "0" and float(w) > 0
    ]
    return max(cells, key=lambda cell: cell[0] / cell[1])


def _three(numbers: Numbers) -> Checks:
    found = numbers["source"][PENALTY]
    k, n, where = best_cell(numbers, ALL)
    return [
        *(Check(f"runs with a latent for {name}", reading_rate(found, name), "≥", MOST) for name in READINGS),
        Check("runs with all three", reading_rate(found, ALL), "≥", MOST),
        Check(f"the same, where it is commonest in the grid ({where})", rate(k, n), "≥", MOST),
    ]


def _four(numbers: Numbers) -> Checks:
    sets = numbers["source"][PENALTY]["sets"]
    return [
        Check(
            "runs with latents for four different sets of tokens", rate(sum(s >= 4 for s in sets), len(sets)), "≥", MOST
        )
    ]


def _trivial(numbers: Numbers) -> Checks:
    found = numbers["source"][NO_PENALTY]
    none = sum(not any(found[name][i] for name in READINGS) for i in range(len(found[ALL])))
    return [
        Check("w = 0: runs with none of the three readings", rate(none, len(found[ALL])), "≥", MOST),
        Check("w = 0: runs with all three", reading_rate(found, ALL), "≤", FEW),
    ]


def _sparsity(numbers: Numbers) -> Checks:
    sparse, dense = numbers["source"][PENALTY], numbers["source"][NO_PENALTY]
    return [
        *(
            Check(f"runs with {name}: with the penalty, less without", difference(sparse[name], dense[name]), "≥", GAIN)
            for name in (*READINGS, ALL)
        ),
        Check(
            "share of live latents with one of the three readings: with the penalty, less without",
            difference(sparse["named"], dense["named"]), "≥", GAIN,
        ),
    ]  # fmt: skip


def _trained(numbers: Numbers) -> Checks:
    after, before = numbers["source"][PENALTY], numbers["source"][UNTRAINED]
    return [
        Check(f"runs with {name}: trained, less untrained", difference(after[name], before[name]), "≥", GAIN)
        for name in (*READINGS, ALL)
    ]


def _seed(numbers: Numbers) -> Checks:
    found = numbers["source"]["cosines"]
    return [
        Check(
            "mean cosine of a run's latents with those of the median run that they match",
            mean(found[PENALTY]),
            "≥",
            0.9,
        ),
        Check("the same, less that of the untrained runs", difference(found[PENALTY], found[UNTRAINED]), "≥", GAIN),
    ]


def _unit_rows(numbers: Numbers) -> Checks:
    return _better(numbers, "decoder rows of unit length")


def _more_data(numbers: Numbers) -> Checks:
    return _better(numbers, "more data around the tokens")


def _better(numbers: Numbers, variant: str) -> Checks:
    """The same beginnings: seed by seed."""
    changed, base = numbers["variants"][variant], numbers["source"][PENALTY]
    return [
        Check("runs with all three: changed, less as it was", difference(changed[ALL], base[ALL]), "≥", GAIN),
        Check(
            "share of live latents with one of the three: changed, less as it was",
            difference(changed["named"], base["named"]), "≥", GAIN,
        ),
    ]  # fmt: skip


def _families(numbers: Numbers) -> Checks:
    """Each with its own beginnings, which have readings before they are trained."""
    checks = []
    for part in ("relu_l1", "topk"):
        for name, found in numbers[part].items():
            if "untrained" not in name:
                checks.append(Check(f"{name}: runs with all three", reading_rate(found, ALL), "≥", MOST))
    return checks


def _families_learned(numbers: Numbers) -> Checks:
    checks = []
    for part in ("relu_l1", "topk"):
        rows = numbers[part]
        for name, found in rows.items():
            before = rows.get(f"{name}, untrained") or rows.get("ReLU-L1, untrained")
            if "untrained" not in name and before is not None:
                gain = difference(found[ALL], before[ALL])
                checks.append(Check(f"{name}: runs with all three, trained, less untrained", gain, "≥", GAIN))
    return checks


def _few_features(numbers: Numbers) -> Checks:
    found = numbers["unit_norms"]
    return [
        Check(
            "runs whose live latents are the four features and nothing else",
            reading_rate(found, "only_features"),
            "≤",
            FEW,
        ),
        Check("live latents along a whole token of two features", mean(found["latents_token"]), "≥", 1.0),
    ]


def _escape(numbers: Numbers) -> Checks:
    unit, free = numbers["unit_norms"], numbers["free_norms"]
    return [
        Check("mean length of a live decoder row, free", mean(free["decoder_norm"]), "≥", 1.1),
        Check("mean active code, unit less free", difference(unit["mean_code"], free["mean_code"]), "≥", 0.0),
        Check("active latents a token, free less unit", difference(free["l0"], unit["l0"]), "≥", 0.0),
    ]


def _another_seed(numbers: Numbers) -> Checks:
    found = numbers["unit_norms"]
    return [Check("share of seeds that have the commonest reading", exact(found["commonest"][0][0]), "≤", MOST)]


CLAIMS = (
    Claim("three-readings", ARTICLE,
          "The autoencoder has a latent for the pets, one for the robots, and one for what is not an animal.",
          _three, "all three, in one run"),
    Claim("four-features", ARTICLE, "At least four features seem to be learned.", _four, "one run"),
    Claim("trivial-compression", ARTICLE,
          "Without sparsity it could learn a trivial compression without meaningful features.", _trivial),
    Claim("sparsity", ARTICLE, "Sparsity is what disentangles the features.", _sparsity),
    Claim("learned", ARTICLE, "The readings are what the autoencoder has learned from its data.", _trained),
    Claim("one-seed", QUESTION, "Does another seed find the same latents?", _seed),
    Claim("unit-rows", QUESTION, "Do decoder rows of unit length bring more of the three readings?", _unit_rows),
    Claim("more-data", QUESTION, "Do more data around the tokens bring more of the three readings?", _more_data),
    Claim("families", QUESTION, "Do ReLU-L1 and TopK have all three readings in most runs?", _families),
    Claim("families-learned", QUESTION, "Do ReLU-L1 and TopK have them more often than before training?", _families_learned),
    Claim("binary-tokens", DERIVED,
          "Of sums of features the penalty prefers whole tokens: √2 for one latent along two features, 2 for two latents.",
          _few_features),
    Claim("free-rows", DERIVED, "Free decoder rows escape the penalty: codes shrink while rows grow.", _escape),
    Claim("binary-seed", QUESTION, "Is what a reader would write down mostly the seed's?", _another_seed),
)  # fmt: skip
