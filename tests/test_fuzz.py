"""A glance of scripts/fuzz.py: some altered inputs of every reader. Minutes of it: python -m scripts.fuzz."""

import pytest

from scripts.fuzz import run
from scripts.fuzz_targets import TARGETS, Target


@pytest.mark.parametrize("number", [8, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_altered_files_are_taken_or_refused_in_one_line_that_names_them(target: Target, number: int) -> None:
    counts = run(target, seed=0, first=0, number=number, seconds=60, keep=None)
    assert counts.findings == []
    assert counts.inputs == counts.refused + counts.accepted == number


# Inputs that were findings once: (target, number).
ONCE = [
    ("recipe", 30863),
    ("manifest.json", 1152),
    ("manifest.json", 4467),
    ("commits, verify", 116),
    ("commits, close", 540),
    ("plan.json", 4401),
]


@pytest.mark.parametrize(("name", "number"), ONCE)
def test_what_was_found_is_refused_in_one_line(name: str, number: int) -> None:
    [target] = [target for target in TARGETS if target.name == name]
    assert run(target, seed=7, first=number, number=1, seconds=60, keep=None).findings == []
