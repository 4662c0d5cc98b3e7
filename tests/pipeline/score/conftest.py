"""A tiny model, tokens for it, and a store of its activations before and after each MLP."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from stores.activations import ActivationStore
from tests.conftest import unmix

HOOKS = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in ("hook_resid_mid", "mlp.hook_post", "hook_mlp_out")]


@pytest.fixture(scope="session")
def mlps(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    folder = tmp_path_factory.mktemp("mlps")
    functions = (f"def walk_{i}(path):\n    return os.listdir(path)[{i}:]\n\n" for i in range(1, 1201))
    (folder / "text.txt").write_text("".join(functions))  # the third of its five passages is held out
    (folder / "r.toml").write_text(
        f'[extract]\nmodel = "{tiny_model}"\nhook_points = {HOOKS}\ncontext = 32\nn_rows = 2500\nchunk_rows = 310\n'
        'heldout_fraction = 0.1\nshard_chunks = 2\ndtype = "float32"\ntext = { source = "files", path = "text.txt" }\n'
        "[train]\nbatch_size = 128\nn_tokens = 1280\n"
    )
    unmix("extract", "r.toml", "--device", "cpu", cwd=folder)
    return ActivationStore.open(folder / "runs" / "r" / "extract" / "activations.zarr")


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> LanguageModel:
    return load_model(ModelFiles.find(str(tiny_model)))


@pytest.fixture(scope="session")
def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4096, (6, 24), dtype=np.int32)
