"""Small real things that the tests share: a GPT-2 of two layers, text, stores."""

import tests.checked  # noqa: F401, before anything that it checks

# isort: split
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.train.source import Activations, Source
from stores.activations import ActivationStore
from stores.description import Description
from stores.devices import use
from stores.moments import Moments
from stores.site import Site
from stores.writer import StoreWriter
from tests.dying import Process
from tests.pretended import pretended

torch.set_num_threads(1)  # what is tested is small, and two tests run at a time
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # for processes that the tests start
multiprocessing.set_forkserver_preload(["tests.loaded"])
os.fsync = lambda descriptor: None  # 4 ms each on a disk; a kill loses no written byte, and no test cuts the power


# What is tested on a GPU takes the name of a device, so that it runs on another one where there is none.
CUDA = pytest.param(
    "cuda:0",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device")],
)

# For a test's `device` (indirect=True): one that takes long where there is no GPU.
SLOW_WITHOUT = [pytest.param("pretended", marks=pytest.mark.slow), CUDA]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that is not marked gpu is of the CPU: it, its fixtures and its processes see no GPU."""
    with pytest.MonkeyPatch.context() as patch:
        if item.get_closest_marker("gpu") is None and torch.cuda.is_available():
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setenv("CUDA_VISIBLE_DEVICES", "")
        return (yield)


@pytest.fixture(params=["pretended", CUDA])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """A GPU, or what pretends to be one (tests/pretended.py)."""
    if request.param == "pretended":
        with pretended() as name:
            yield name
    else:
        use(request.param)
        yield request.param


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a GPT-2 of 2 layers and d_model 32, random weights far from their initial scale, float32."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from pipeline.models.files import DEMO

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


_made: dict[tuple[Any, ...], Path] = {}
_copies = tempfile.TemporaryDirectory()


def make_store(
    path: Path | str,
    *,
    n_sequences: int = 60,
    n_positions: int = 10,
    d: dict[str, int] | None = None,
    dtype: str = "float32",
    chunk_sequences: int = 8,
    shard_chunks: int = 2,
    heldout_fraction: float = 0.25,
    rows: Callable[[str, int, int], np.ndarray] | None = None,
    close: bool = True,
    allow_nonfinite: bool = False,
) -> ActivationStore | StoreWriter:
    """A store of random rows, or of rows(hook_point, n, d). One that was made before is copied: making it takes thirty
    times as long."""
    d = d or {"blocks.0.hook_resid_post": 6}
    sizes = n_sequences, n_positions, *d.items(), dtype, chunk_sequences, shard_chunks, heldout_fraction
    plain = close and rows is None and isinstance(path, Path) and not allow_nonfinite
    if plain and not path.exists() and sizes in _made:
        shutil.copytree(_made[sizes], path)
        return ActivationStore.open(path)
    description = Description(
        model="none", model_revision=None, model_digest="0", tokenizer_digest="0", weight_processing="none",
        precision="float32", text="none",
        text_digest=None, context=n_positions + 1, positions=tuple(range(1, n_positions + 1)), bos=True, hook_points=tuple(d),
        d=tuple(d.values()), dtype=dtype, n_sequences=n_sequences, heldout_fraction=heldout_fraction,
        chunk_sequences=chunk_sequences, shard_chunks=shard_chunks,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 100, (n_sequences, n_positions + 1), dtype=np.int32)
    writer = StoreWriter.create(path, description)
    n = n_sequences * n_positions
    values = {
        h: rows(h, n, width) if rows else rng.normal(size=(n, width)).astype(np.float32) for h, width in d.items()
    }
    for shard in range(description.n_shards):
        write_shard(writer, shard, tokens, values, allow_nonfinite=allow_nonfinite)
    if not close:
        return writer
    store = writer.close()
    if plain:
        _made[sizes] = Path(_copies.name) / str(len(_made))
        shutil.copytree(path, _made[sizes])
    return store


def planted_rows(n: int, d: int, G: int = 32, k: int = 2) -> np.ndarray:
    """(n, d) sums of k of G random unit directions with strengths in [1/2, 1]."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(G, d))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    active = rng.random((n, G)).argsort(1)[:, :k]
    strength = np.zeros((n, G))
    np.put_along_axis(strength, active, rng.uniform(0.5, 1, (n, k)), 1)
    return (strength @ truth + 3).astype(np.float32)


def source_of(x: torch.Tensor, hook_point: str = "blocks.0.hook_resid_post", weights: Any = None) -> Source:
    """What a method may know of the rows of x."""
    return source_of_site({hook_point: x}, {hook_point: x}, weights)


def source_of_site(reads: dict[str, torch.Tensor], writes: dict[str, torch.Tensor], weights: Any = None) -> Source:
    """What a method may know of rows at several hook points, {hook point: (n, d)}."""

    def known(parts: dict[str, torch.Tensor]) -> Activations:
        x = torch.cat(list(parts.values()), dim=-1).float().numpy()
        return Activations(tuple(parts), tuple(map(moments_of, parts.values())), lambda n: x[:n], lambda n: x[-n:])

    own = known(reads)
    site = Site(tuple(reads), tuple(writes))
    return Source(site, own, own if site.reads == site.writes else known(writes), lambda: weights)


def moments_of(x: torch.Tensor) -> Moments:
    values = x.double().numpy()
    norms = np.linalg.norm(values, axis=1).mean()
    return Moments(len(x), values.mean(0), (values**2).mean(0), abs(values).max(0), float(norms), 3.0)


def write_shard(writer: StoreWriter, shard: int, tokens: np.ndarray, values: dict[str, np.ndarray], **options) -> None:
    """Write one shard of a store of which all tokens and rows are at hand."""
    first, last = writer.description.sequences(shard)
    n = writer.description.n_positions
    own = {h: x[first * n : last * n] for h, x in values.items()}
    writer.write_shard(shard, tokens[first:last], own, **options)


@pytest.fixture
def store(tmp_path: Path) -> ActivationStore:
    found = make_store(tmp_path / "activations.zarr")
    assert isinstance(found, ActivationStore)
    return found


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of an empty bucket on a local S3 server."""
    from botocore.session import get_session
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key, value in settings.items():
            patch.setenv(key, value)
        get_session().create_client("s3").create_bucket(Bucket="activations")
        yield "s3://activations"
    server.stop()


def unmix(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command, in this process: starting one takes longer than most of what is tested."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(app, list(arguments))
    assert not check or done.exit_code == 0, done.stderr
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def start(
    *arguments: str,
    cwd: Path,
    dies_at: tuple[str, int] | None = None,
    signals: Sequence[tuple[str, int, signal.Signals]] = (),
    stderr: Path | None = None,
) -> Process:
    """Start the command in a process of its own, and do not wait for it. dies_at: what makes it SIGKILL itself, signals:
    what makes it send itself others, see tests/dying.py. stderr: a file for what it says there."""
    killed = [(*dies_at, signal.SIGKILL)] if dies_at else []
    process = Process(arguments, cwd, environment(), [*signals, *killed], stderr)
    process.start()
    return process


def kill_at(pattern: str, n: int, *arguments: str, cwd: Path) -> None:
    """Run the command, which is killed as the n-th file that matches is about to get its name."""
    assert start(*arguments, cwd=cwd, dies_at=(pattern, n)).wait() == -signal.SIGKILL


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}
