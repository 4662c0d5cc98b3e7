"""Triton's interpreter runs the kernels on a CPU; it must be on before triton is imported, so in a process of its own."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="triton is not installed: pip install -e '.[dev]' on Linux")

CHECK = """
import torch
from pipeline.train import kernels, triton_kernels
from pipeline.train.kernels import Entries

device = "{device}"
generator = torch.Generator().manual_seed(0)
for d, n_rows, n_table in ((24, 9, 40), (5000, 3, 11), (1, 4, 3)):
    counts = torch.randint(0, 6, (n_rows,), generator=generator)
    counts[1] = 0  # a row without entries
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    n = int(offsets[-1])
    values = torch.randn(n, generator=generator)
    indices = torch.randint(0, n_table, (n,), generator=generator)
    table = torch.randn(n_table, d, generator=generator)
    a = torch.randn(n_rows, d, generator=generator)
    code = Entries(values, indices, offsets)
    on = [t.to(device) for t in (values, indices, offsets, table, a)]
    found = triton_kernels.bag(*on[:4]).cpu()
    torch.testing.assert_close(found, kernels.bag(code, table), rtol=1e-5, atol=1e-4)
    assert torch.equal(found, triton_kernels.bag(*on[:4]).cpu())
    found = triton_kernels.dots(on[4], on[3], on[1], on[2]).cpu()
    torch.testing.assert_close(found, kernels.dots(a, table, code), rtol=1e-5, atol=1e-4)
print("alike")
"""


def check(device: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(device=device)],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "alike", done.stderr


def test_in_the_interpreter_they_give_what_pytorch_gives() -> None:
    check("cpu", TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_they_give_what_pytorch_gives() -> None:
    check("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["topk", "batch_topk", "matryoshka", "relu_l1"])
def test_a_dictionary_learns_the_same_on_a_gpu(method: str) -> None:
    from dataclasses import replace

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
