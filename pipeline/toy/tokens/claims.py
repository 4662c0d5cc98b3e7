"""What the source says of its eight tokens, and what decides on it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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


def best_cell(numbers: Numbers) -> Checks:
    """Where in the grid all three are commonest among trained runs with a penalty, measured again from other beginnings."""
    again = [(grid, grid["again"]) for grid in numbers.values() if grid.get("again")]
    if not again:
        return []
    grid, cell = max(again, key=lambda found: found[1]["chosen_by"])
    where = f"{grid['d_sae']} latents, w = {cell['w']:g}, {cell['steps']} steps"
    what = f"the same, from other seeds, where it is commonest in the grid ({where})"
    return [Check(what, rate(cell["count"], grid["n"]), "≥", MOST)]


def _three(numbers: Numbers) -> Checks:
    found = numbers["source"][PENALTY]
    return [
        *(Check(f"runs with a latent for {name}", reading_rate(found, name), "≥", MOST) for name in READINGS),
        Check("runs with all three", reading_rate(found, ALL), "≥", MOST),
        *best_cell(numbers),
    ]


def _four(numbers: Numbers) -> Checks:
    after, before = ([s >= 4 for s in numbers["source"][key]["sets"]] for key in (PENALTY, UNTRAINED))
    return [
        Check("runs with latents for four different sets of tokens", rate(sum(after), len(after)), "≥", MOST),
        Check("the same, less that of the untrained runs", difference(after, before), "≥", GAIN),
    ]


def _trivial(numbers: Numbers) -> Checks:
    dense, sparse = (_without(numbers["source"][key]) for key in (NO_PENALTY, PENALTY))
    return [
        Check("w = 0: runs with none of the three readings", rate(sum(dense), len(dense)), "≥", MOST),
        Check("the same, less that with the penalty", difference(dense, sparse), "≥", GAIN),
    ]


def _without(found: Mapping[str, Any]) -> list[int]:
    """Whether each run has none of the three readings, 1 or 0."""
    return [int(not any(has)) for has in zip(*(found[name] for name in READINGS), strict=True)]


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
    """Pairs of trained runs, and pairs of their beginnings; each less the same pairs with shuffled tokens."""
    found = numbers["source"]["agreement"]
    above = {key: np.subtract(found[key]["pairs"], found[key]["shuffled"]).tolist() for key in (PENALTY, UNTRAINED)}
    return [
        Check("mean cosine of the matched latents of two runs", mean(found[PENALTY]["pairs"], "pairs"), "≥", 0.9),
        Check("the same, less that with shuffled tokens", mean(above[PENALTY], "pairs"), "≥", GAIN),
        Check(
            "the latter, less what it is for untrained runs",
            difference(above[PENALTY], above[UNTRAINED], "pairs"), "≥", GAIN,
        ),
    ]  # fmt: skip


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
