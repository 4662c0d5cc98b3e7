"""`make gpu` on a CPU at a tiny size, as no GPU is needed to find a mistake in it."""

import json
from pathlib import Path

import pytest
import torch

from scripts import bench_gpu, gpu_step, step_limit
from scripts.contestants import Sizes

SMALL = ["--device", "cpu", "--small", "--parts"]


def figures(folder: Path) -> dict:
    return json.loads((folder / "runs/bench/gpu-cpu.json").read_text())


def test_a_part_that_fails_is_told_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(bench: bench_gpu.Bench) -> dict:
        raise ValueError("the disk\nis full")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(bench_gpu.PARTS, "extract", fails)
    assert bench_gpu.main([*SMALL, "extract", "load", "profile"]) == 1
    assert "extract: ValueError: the disk: this part is left out\n" in capsys.readouterr().err
    found = figures(tmp_path)
    assert found["failed"] == ["extract: ValueError: the disk"]
    assert all(found[f"load_{residency}_rows_per_s"] > 0 for residency in ("gpu", "ram", "stream"))
    assert any(key.startswith("profile_ms ") for key in found)
    lines = (tmp_path / "runs/bench/gpu-cpu.md").read_text().splitlines()
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines if line != "|---|---|")
    assert lines[-1] == "| failed | extract: ValueError: the disk |"


@pytest.mark.slow
def test_every_part_runs_at_a_tiny_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench_gpu.main([*SMALL, "extract", "load", "step", "large", "profile"]) == 0
    found = figures(tmp_path)
    for key in ("extract_bfloat16_tokens_per_s", "extract_store_tokens_per_s", "step_topk_ms", "large_topk_ms"):
        assert found[key] > 0


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert bench_gpu.main(["--check"]) == 2
    assert "sees no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", step_limit.H100),
        ("NVIDIA H200", step_limit.H200),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA A100-SXM4-80GB", None),
    ],
)
def test_the_limit_is_that_of_the_device(name: str, known: step_limit.Device | None, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    sizes = Sizes(768, 24_576, 32, 8192)
    expected = known and 1e3 * sum(one.seconds(known) for one in step_limit.passes(768, 24_576, 8192, 32))
    assert gpu_step.limit_ms(sizes, "cuda:0") == expected
    assert gpu_step.limit_ms(sizes, "cpu") is None
