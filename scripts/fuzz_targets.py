"""What reads what others wrote: for each reader files that are right, and which of them is to be altered."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import transformers.activations  # noqa: F401  seconds, which are not the reader's
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from pipeline.models.files import ModelFiles
from pipeline.models.gpt2_weights import read_weights, shapes
from pipeline.score.subjects import foreign_subjects
from pipeline.stages import load_recipe
from pipeline.train.ranks import Ranks
from pipeline.train.tasks import tasks
from pipeline.units import Unit
from stores.activations import ActivationStore
from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated
from stores.manifest import commit_json
from stores.memory import processes_here
from stores.place import place_at
from stores.site import Site
from stores.spec import Spec
from stores.verify import damage
from stores.writer import StoreWriter
from tests.conftest import make_store

HOOK = "blocks.0.hook_resid_post"
RECIPE = f"""
name = "fuzz"
[extract]
model = "demo"
hook_points = ["{HOOK}", "blocks.0.mlp.hook_post"]
context = 32
n_rows = 6000
heldout_fraction = 0.1
dtype = "float32"
positions = {{ skip_first = 1, n_per_sequence = 4 }}
text = {{ source = "files", path = "text.txt" }}
[train]
batch_size = 128
n_tokens = 25_600
[train.topk]
d_sae = [48, 64]
k = 4
seed = [0, 1]
lr = 5e-3
[[train.relu_l1]]
hook_points = "{HOOK}"
d_sae = 48
l1_coefficient = [0.1, 1e-5]
[train.pca]
[score]
n_sequences = 8
at_l0 = [4]
dictionaries = ["other"]
"""


@dataclass(frozen=True)
class Target:
    """make: writes a folder that is right. file: which one of it is altered, a pattern. kind: of mutation. read: reads the
    folder as the program does. says: what a message has to hold to tell where the mistake is; by default the file's name."""

    name: str
    make: Callable[[Path], None]
    file: str
    kind: str
    read: Callable[[Path], object]
    says: str = ""

    def tells(self, message: str, file: str) -> bool:
        return bool(re.search(self.says or re.escape(file), message))


def _recipe(folder: Path) -> None:
    (folder / "recipe.toml").write_text(RECIPE)


def _read_recipe(folder: Path) -> None:
    recipe = load_recipe(str(folder / "recipe.toml"))
    tasks(recipe.train, lambda hook_point: 16, recipe.extraction.hook_points)


def _dictionary(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = (
        torch.randn(6, 10, generator=generator),
        torch.zeros(10),
        torch.randn(10, 6, generator=generator),
        torch.zeros(6),
    )
    provenance = {"method": "topk", "model": "none", "model_digest": "0", "weight_processing": "none"}
    FeatureDictionary(Spec("topk", 6, 10, Site.at(HOOK), 3, provenance), *weights).save(folder / "mine")
    make_store(folder / "s.zarr", n_sequences=20)


def _weights(folder: Path) -> None:
    _dictionary(folder)
    (folder / "mine" / "provenance.json").unlink()  # its digest would refuse all other weights


def _pickled(folder: Path) -> None:
    _dictionary(folder)
    (folder / "mine").rename(folder / "ours")
    convert(folder / "ours", folder / "mine", "dictionary_learning", Stated())


def _npz(folder: Path) -> None:
    _dictionary(folder)
    weights = FeatureDictionary.load(folder / "mine").weights
    shutil.rmtree(folder / "mine")
    (folder / "mine").mkdir()
    np.savez(folder / "mine" / "params.npz", threshold=np.zeros(10), **{n: x.numpy() for n, x in weights.items()})


def _read_dictionary(folder: Path) -> None:
    from pipeline.score.config import ForeignDictionary, ScoreConfig

    stated = {"hook_point": HOOK} if (folder / "mine" / "params.npz").exists() else {}
    config = ScoreConfig(dictionaries=(ForeignDictionary(path=str(folder / "mine"), **stated),))
    for subject in foreign_subjects(config, ActivationStore.open(folder / "s.zarr")):
        subject.load()(torch.zeros(2, 6))


def _store(folder: Path) -> None:
    make_store(folder / "s.zarr", n_sequences=40)


def _half(folder: Path) -> None:
    make_store(folder / "s.zarr", n_sequences=40, close=False)


def _read_store(folder: Path) -> None:
    store = ActivationStore.open(folder / "s.zarr")
    for hook_point in store.hook_points:
        store.stats(hook_point)
        store.rows(hook_point, 0, min(100, store.n_rows))
        list(store.heldout(hook_point, 20))
    store.heldout_tokens(2)


def _verify(folder: Path) -> None:
    for _, found in damage(place_at(folder / "s.zarr")):
        for one in found:
            if "\n" in one.what or "s.zarr" not in one.what:
                raise AssertionError(f"verify says {one.what!r}")


def _close(folder: Path) -> None:
    writer = StoreWriter.resume(folder / "s.zarr")
    writer.missing()
    writer.text_position(1)
    writer.close()


def _model(folder: Path) -> None:
    settings = {"vocab_size": 8, "n_positions": 16, "n_embd": 4, "n_layer": 1, "n_head": 2, "n_inner": 8}
    settings |= {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True}
    commit_json(folder / "config.json", {"model_type": "gpt2", "bos_token_id": 0, "eos_token_id": 0, **settings})
    save_file({name: torch.ones(shape) for name, shape in shapes(settings)}, folder / "model.safetensors")
    vocabulary = {token: i for i, token in enumerate(("<bos>", "a", "b", "c", "ab", "bc", "abc", "Ġ"))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("b", "c"), ("ab", "c")]))
    tokenizer.add_special_tokens(["<bos>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def _read_model(folder: Path) -> None:
    files = ModelFiles.find(str(folder))
    files.check()
    files.digest, files.tokenizer_digest  # noqa: B018  each reads
    files.tokenizer.encode_batch(["abc cab", ""])
    read_weights(folder, files.config)


def _unit(folder: Path) -> None:
    unit = _this_unit(folder)
    unit.begin()
    commit_json(unit.folder / "scores.json", {"l0": 1})
    unit.finish("cpu", 1.0)


def _this_unit(folder: Path) -> Unit:
    return Unit("score", "unit", folder / "unit", 1, {"k": 4, "x": {"y": [1, 2]}}, {"store_digest": "0"})


def _read_unit(folder: Path) -> None:
    unit = _this_unit(folder)
    unit.state()
    unit.rate(3, unit.folder / "plan.json")


def _environment(folder: Path) -> None:
    (folder / "environment").write_text(
        "RANK=1\nWORLD_SIZE=2\nLOCAL_RANK=1\nLOCAL_WORLD_SIZE=2\nMASTER_ADDR=127.0.0.1\nMASTER_PORT=29500\n"
        "SLURM_NTASKS=2\nSLURM_PROCID=1\nSLURM_NTASKS_PER_NODE=2"
    )


def _read_environment(folder: Path) -> None:
    """As torchrun or Slurm might set it; no process is met."""
    lines = [line.split("=", 1) for line in (folder / "environment").read_text().split("\n")]
    variables = {name: value for name, value in lines}
    with _variables(variables), patch("torch.distributed.init_process_group"), patch("torch.distributed.new_group"):
        ranks = Ranks.join("data", "cpu")
    if not 0 <= ranks.rank < ranks.size:
        raise AssertionError(f"{variables} gave rank {ranks.rank} of {ranks.size}")
    if processes_here(variables) < 1:
        raise AssertionError(f"{variables} gave {processes_here(variables)} processes")


@contextmanager
def _variables(variables: dict[str, str]) -> Iterator[None]:
    kept = {name: value for name, value in os.environ.items() if not re.match("RANK|WORLD|LOCAL|MASTER|SLURM", name)}
    with patch.dict(os.environ, {**kept, **variables}, clear=True):
        yield


TARGETS = (
    Target("recipe", _recipe, "recipe.toml", "toml", _read_recipe, r"recipe\.toml|extract|train|score|store|name|unknown key"),
    Target("cfg.json", _dictionary, "mine/cfg.json", "json", _read_dictionary, r"cfg\.json|/mine"),
    Target("provenance.json", _dictionary, "mine/provenance.json", "json", _read_dictionary, r"provenance\.json|/mine"),
    Target("sae_weights", _weights, "mine/sae_weights.safetensors", "safetensors", _read_dictionary),
    Target("ae.pt", _pickled, "mine/ae.pt", "bytes", _read_dictionary, r"/mine"),
    Target("ae.pt's config.json", _pickled, "mine/config.json", "json", _read_dictionary, r"/mine"),
    Target("params.npz", _npz, "mine/params.npz", "bytes", _read_dictionary, r"/mine"),
    Target("zarr.json", _store, "s.zarr/zarr.json", "json", _read_store, r"s\.zarr"),
    Target("manifest.json", _store, "s.zarr/manifest.json", "json", _read_store, r"s\.zarr"),
    Target("commits", _store, "s.zarr/commits/*.json", "json", _read_store, r"s\.zarr"),
    Target("commits, verify", _half, "s.zarr/commits/*.json", "json", _verify, r"s\.zarr"),
    Target("commits, close", _half, "s.zarr/commits/*.json", "json", _close, r"s\.zarr"),
    Target("sums, close", _half, "s.zarr/commits/*.npz", "bytes", _close, r"s\.zarr"),
    Target("config.json", _model, "config.json", "json", _read_model, r"config\.json|extract\.model"),
    Target("tokenizer.json", _model, "tokenizer.json", "json", _read_model, r"tokenizer|config\.json"),
    Target("model weights", _model, "model.safetensors", "safetensors", _read_model, r"extract\.model"),
    Target("plan.json", _unit, "unit/plan.json", "json", _read_unit, r"unit"),
    Target("unit's manifest", _unit, "unit/manifest.json", "json", _read_unit, r"unit"),
    Target("environment", _environment, "environment", "environment", _read_environment, r"RANK|WORLD_SIZE|MASTER"),
)  # fmt: skip
