"""Small real things that the tests share: a GPT-2 of two layers, text, stores."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stores.activations import ActivationStore, StoreWriter
from stores.description import Description

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of 2 layers and d_model 32, random weights far from their initial scale, float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from pipeline.extract.language_model import DEMO

    folder = tmp_path_factory.mktemp("tiny-gpt2")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=4096, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and gains that matter
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text((DEMO / name).read_text())
    return folder


def make_store(
    path: Path,
    *,
    n_sequences: int = 60,
    n_positions: int = 10,
    d: dict[str, int] | None = None,
    dtype: str = "float32",
    chunk_sequences: int = 8,
    shard_chunks: int = 2,
    n_heldout_sequences: int = 12,
    rows: Callable[[str, int, int], np.ndarray] | None = None,
    close: bool = True,
) -> ActivationStore | StoreWriter:
    """A store of random rows, or of rows(hook_point, n, d)."""
    d = d or {"blocks.0.hook_resid_post": 6}
    description = Description(
        model="none", model_revision=None, model_digest="0", tokenizer_digest="0", weight_processing="none", text="none",
        text_digest=None, context=n_positions + 1, positions=tuple(range(1, n_positions + 1)), bos=True, hook_points=tuple(d),
        d=tuple(d.values()), dtype=dtype, n_sequences=n_sequences, n_heldout_sequences=n_heldout_sequences,
        chunk_sequences=chunk_sequences, shard_chunks=shard_chunks,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 100, (n_sequences, n_positions + 1), dtype=np.int32)
    writer = StoreWriter.create(path, description, tokens)
    n = n_sequences * n_positions
    values = {
        h: rows(h, n, width) if rows else rng.normal(size=(n, width)).astype(np.float32) for h, width in d.items()
    }
    for shard in range(description.n_shards):
        first, last = writer.sequences(shard)
        writer.write_shard(shard, {h: x[first * n_positions : last * n_positions] for h, x in values.items()})
    return writer.close() if close else writer


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    found = make_store(tmp_path / "activations.zarr")
    assert isinstance(found, ActivationStore)
    return found


def unmix(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], cwd=cwd, env=_environment(), capture_output=True, text=True
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def kill_when(condition: Callable[[], bool], *arguments: str, cwd: Path, timeout_s: float = 120) -> bool:
    """Start the command and SIGKILL it as soon as the condition holds. Returns whether it was still running."""
    process = start(*arguments, cwd=cwd)
    end = time.time() + timeout_s
    while process.poll() is None and not condition():
        assert time.time() < end, f"{arguments} did not get there in {timeout_s} s"
        time.sleep(0.002)
    running = process.poll() is None
    if running:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return running


def start(*arguments: str, cwd: Path) -> subprocess.Popen[bytes]:
    """Start the command in a process of its own, and do not wait for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=cwd, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _environment() -> dict[str, str]:
    root = str(Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "2", "HF_HUB_OFFLINE": "1"}
