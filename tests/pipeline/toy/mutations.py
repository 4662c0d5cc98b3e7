"""What every toy's claims keep: they can be decided both ways, and only by numbers."""

import copy
import json
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import validated
from pipeline.toy import page, stage
from pipeline.toy.findings import Claim, decide


def measured(name: str, folder: Path, **changes: Any) -> dict[str, Any]:
    """The numbers of all parts of a toy at its quick settings, changed further, as they are read back from files; its
    page and its findings are written on the way."""
    settings = validated(stage.module(name).Settings, {**stage.module(name).QUICK, **changes}, name)
    parts = stage.module(name).parts(settings, folder)
    numbers = {part: json.loads(json.dumps(measure())) for part, measure in parts.items()}
    page.write(folder, lambda: stage.page_of(name, numbers), decide(stage.claims(name), numbers), "")
    return numbers


def check_claims(
    claims: Sequence[Claim], numbers: Mapping[str, Any], hints: Sequence[float] = (), n_mutations: int = 400
) -> None:
    """numbers: of all parts of a toy, of a small run. Each claim gets a finding of them; with mutated numbers it gets
    another verdict and other sentences: no conclusion is typed in. hints: values that a claim asks for."""
    assert claims
    assert len({claim.name for claim in claims}) == len(claims)
    assert all(claim.says.endswith((".", "?")) and claim.source for claim in claims)
    verdicts = {finding.claim.name: {finding.verdict} for finding in decide(claims, numbers)}
    texts = {finding.claim.name: {tuple(map(str, finding.checks))} for finding in decide(claims, numbers)}
    assert all(text != ((),) for found in texts.values() for text in found), "a claim without a check"
    for trial in range(n_mutations):
        mutated = mutate(numbers, random.Random(trial), hints)
        for claim in claims:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    (finding,) = decide([claim], mutated)
            except (ValueError, ZeroDivisionError, IndexError, OverflowError):
                continue  # numbers that no run can have
            verdicts[claim.name].add(finding.verdict)
            texts[claim.name].add(tuple(map(str, finding.checks)))
        if all({"confirmed"} < found and found & {"refuted", "not decided"} for found in verdicts.values()):
            break
    for name, found in verdicts.items():
        assert "confirmed" in found, f"{name}: no numbers confirm it: {found}"
        assert found - {"confirmed"}, f"{name}: no numbers speak against it"
        assert len(texts[name]) > 1, f"{name}: its sentences do not follow from the numbers"


def mutate(numbers: Any, rng: random.Random, hints: Sequence[float] = ()) -> Any:
    """The same tree with other leaves. A leaf's number is drawn anew, or kept; whole branches get one number now and then,
    for a claim may look at all of a list."""
    numbers = copy.deepcopy(numbers)
    _walk(numbers, rng, rng.choice([0.1, 0.5, 1.0]), [-1.0, 0.0, 0.3, 0.9, 1.0, 2.0, 100.0, *hints], None)
    return numbers


def _walk(node: Any, rng: random.Random, share: float, values: Sequence[float], together: float | None) -> None:
    if together is None and rng.random() < 0.3:
        together = rng.choice(values)
    for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
        if isinstance(value, dict | list):
            _walk(value, rng, share, values, together)
        elif isinstance(value, bool):
            node[key] = rng.random() < 0.5 if together is None else together > 0
        elif isinstance(value, int | float) and rng.random() < share:
            node[key] = _drawn(value, rng, together)


def _drawn(value: float, rng: random.Random, together: float | None) -> float:
    new = (
        together
        if together is not None
        else rng.choice([0.0, 1.0, -value, value * rng.uniform(0, 3), rng.uniform(0, 1)])
    )
    if isinstance(value, int):
        return max(0, round(new)) if math.isfinite(new) else value
    return float(new)
