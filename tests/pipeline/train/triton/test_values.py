"""The kernels' numbers, in Triton's interpreter on a CPU; it must be on before triton is imported, so in a process of its
own. With a GPU the same checks run on it."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[dev]' on Linux")


def check(device: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipeline.train.triton.values", device],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith("all\n"), done.stdout + done.stderr


def test_in_the_interpreter_they_give_what_pytorch_gives() -> None:
    """Before, no row had more than five entries, no table was bfloat16, and no position was beyond 2³¹: a sum that is cut
    into parts would have lost all but the first part, and the test would have passed."""
    check("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_they_give_what_pytorch_gives() -> None:
    check("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["topk", "batch_topk", "matryoshka", "relu_l1"])
def test_a_dictionary_learns_the_same_on_a_gpu(method: str) -> None:
    from pipeline.train.methods import METHODS
    from tests.conftest import planted_rows, source_of

    x = torch.from_numpy(planted_rows(2048, 64))
    config = {"d_sae": 1024, "lr": 5e-3} | ({"k": 4, "dead_after_tokens": 300} if "k" in METHODS[method].label else {})
    found = []
    for device in ("cpu", "cuda"):
        made = METHODS[method]
        assert made.learner is not None
        learner = made.learner(made.config(**config), replace(source_of(x), precision="float32"), device)
        for step in range(8):
            learner.step(x[step * 256 :][:256].to(device), step, 20)
        found.append(learner.to_dictionary({}).cpu())
    for name, tensor in found[0].state_dict().items():
        torch.testing.assert_close(found[1].state_dict()[name], tensor, rtol=1e-2, atol=1e-3, msg=name)
