"""The figures of pipeline/train/README.md are those that the scripts print."""

from pathlib import Path

import pytest

from scripts.step_limit import H200, passes, summary

README = (Path(__file__).parents[4] / "pipeline" / "train" / "README.md").read_text()


def test_the_limit_is_the_scripts() -> None:
    assert "\n".join(summary()) in README


def test_a_pass_takes_the_longest_of_flops_memory_and_cache() -> None:
    """By hand: 2 · 8,192 · 768 · 24,576 flops at 989 TFLOP/s, and 24 bytes of each number of W_dec, rows of 2 bytes a number
    gathered."""
    own = {one.name: one.seconds(H200) for one in passes(768, 24_576, 8192, 32)}
    assert own["encode"] == pytest.approx(309.24e9 / 989e12, rel=1e-4)
    assert own["W_enc, x to bfloat16"] == pytest.approx(6 * (18_874_368 + 8192 * 768) / 4.8e12)
    written = 24 * 18_874_368 + 2 * 8192 * 768
    assert own["gradient and step of W_dec"] == pytest.approx((written + 2 * 262_144 * 768) / 5.5e12)


def test_the_kernels_resources_are_the_scripts() -> None:
    triton = pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[dev]' on Linux")
    if f"Triton {triton.__version__} " not in README:
        pytest.skip(f"the table is of another version of Triton than {triton.__version__}")
    from scripts.kernel_resources import of_step, table

    assert "\n".join(table(of_step(768), [90])) in README
