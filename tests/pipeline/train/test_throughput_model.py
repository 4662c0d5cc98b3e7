"""The README's table of what several devices can reach is what the model says."""

from dataclasses import replace
from pathlib import Path

import pytest

import pipeline.train
from scripts.throughput_model import DEVICES, STEPS, seconds, table


def test_the_readme_has_the_table_and_says_that_it_is_computed() -> None:
    text = (Path(pipeline.train.__file__).parent / "README.md").read_text()
    before, _, _ = text.partition(table())
    assert before != text
    assert "computed, not measured" in before


def test_one_device_takes_the_time_of_its_flops_and_bytes() -> None:
    """By hand: 2 · 8192 · 768 · 24,576 flops, 36 · 2 · 768 · 24,576 and 4 · 8192 · 24,576 bytes."""
    h200 = DEVICES[1]
    expected = 3.0924e11 / 989e12 + (1.35895e9 + 8.0531e8) / 4.8e12
    for by in ("rows", "features"):
        assert seconds(STEPS[0], h200, 1, by) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("step", STEPS)
def test_features_divided_have_less_to_read_and_rows_divided_no_less_to_send(step) -> None:
    slow = replace(DEVICES[0], flops_s=1e30, bytes_s=1e30)
    assert seconds(step, slow, 8, "rows") == pytest.approx(1.75 * 8 * step.d * step.d_sae / slow.link_bytes_s)
    fast = replace(DEVICES[0], flops_s=1e30, link_bytes_s=1e30)
    assert seconds(step, fast, 8, "features") == pytest.approx(seconds(step, fast, 1, "features") / 8)
    assert seconds(step, fast, 8, "rows") > seconds(step, fast, 8, "features")
