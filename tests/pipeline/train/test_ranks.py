"""Two processes, as torchrun starts them, learn what one learns."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from pipeline.config import UserError
from pipeline.stages import Run, load_recipe, run_train
from pipeline.train import methods as train
from pipeline.train.learner import FamilyLearner
from pipeline.train.ranks import Ranks
from stores import FeatureDictionary
from tests.conftest import environment, make_store, planted_rows, unmix
from tests.processes import in_processes

HOOK = "blocks.0.hook_resid_post"
METHODS = {
    "topk": "k = 4\ndead_after_tokens = 300",
    "abs_topk": "k = 4\ndead_after_tokens = 300",
    "batch_topk": "k = 4\ndead_after_tokens = 300",
    "matryoshka": "k = 4\nn_prefixes = 3\ndead_after_tokens = 300",
    "relu_l1": "l1_coefficient = 0.5\ngrad_clip = 1.0\nl0_target = 6.0",
    "matching_pursuit": "k = 4\nresidual_threshold = 0.5",
    "tied": "l1_coefficient = 0.5\nresample_every_tokens = 500\ndead_after_tokens = 300",
    "gated": "l1_coefficient = 0.5",
    "p_anneal": "l1_coefficient = 0.5",
    "jumprelu": "l0_target = 4.0\nthreshold = 0.2\nbandwidth = 0.2",
    "rotation": "n_iterations = 3",
    "pca": "n_rows = 300",
}


def recipe(folder: Path, methods: dict[str, str], train: str = "") -> Path:
    tables = "\n".join(
        f"[train.{name}]\n{settings}" + ("" if name in ("rotation", "pca") else "\nd_sae = 48\nlr = 5e-3")
        for name, settings in methods.items()
    )
    path = folder / "two.toml"
    path.write_text(
        f'store = "{folder}/activations.zarr"\n[extract]\nmodel = "demo"\nhook_points = ["{HOOK}"]\nn_rows = 1\n'
        f"[train]\nbatch_size = 65\nn_tokens = 1950\ncheckpoint_every_steps = 10\nprecision = 'float32'\n{train}\n{tables}\n"
    )
    return path


def torchrun(
    folder: Path,
    *arguments: str,
    n: int = 2,
    module: tuple[str, ...] = ("pipeline",),
    options: tuple[str, ...] = (),
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), *options]
    return subprocess.run(
        [*command, "-m", *module, "train", *arguments], cwd=folder, env=environment(), capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(
        tmp_path / "activations.zarr", n_sequences=200, d={HOOK: 16},
        rows=lambda hook_point, n, d: planted_rows(n, d), chunk_sequences=20,
    )  # fmt: skip
    return tmp_path


def learned(folder: Path, run: str, site: str = HOOK) -> dict[str, FeatureDictionary]:
    made = (folder / "runs" / run / "train" / site).glob("*/cfg.json")
    return {path.parent.name: FeatureDictionary.load(path.parent) for path in made}


def assert_alike(one: dict[str, FeatureDictionary], other: dict[str, FeatureDictionary]) -> None:
    assert one.keys() == other.keys()
    for name, dictionary in one.items():
        for key, tensor in dictionary.state_dict().items():
            torch.testing.assert_close(other[name].state_dict()[key], tensor, rtol=2e-3, atol=2e-4, msg=f"{name} {key}")


SOME = ("batch_topk", "relu_l1", "tied", "rotation", "pca")  # the others in threads, in test_contract.py


@pytest.mark.parametrize("names", [SOME, pytest.param(tuple(METHODS), marks=pytest.mark.slow)], ids=["some", "all"])
def test_rows_divided_among_two_processes(folder: Path, names: tuple[str, ...]) -> None:
    """The batch has 65 rows: one process sees 33, the other 32."""
    path = str(recipe(folder, {name: METHODS[name] for name in names}))
    unmix("train", path, "--name", "one", cwd=folder)
    done = torchrun(folder, path, "--name", "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("train: done") == 1
    assert_alike(learned(folder, "one"), learned(folder, "two"))


TWO_GPUS = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(
            torch.cuda.device_count() < 2, reason=f"PyTorch sees {torch.cuda.device_count()} CUDA devices, expected two"
        ),
    ],
)


@pytest.mark.parametrize("parallel", ["data", "features"])
@pytest.mark.parametrize("device", [TWO_GPUS])
def test_two_devices_learn_what_one_learns(folder: Path, device: str, parallel: str) -> None:
    """Over NCCL. On CPUs below, and above."""
    divisible = {name: settings for name, settings in METHODS.items() if train.METHODS[name].divisible}
    path = str(recipe(folder, divisible, f'parallel = "{parallel}"'))
    unmix("train", path, "--name", "one", "--device", device, cwd=folder)
    done = torchrun(folder, path, "--name", "two", "--device", device)
    assert done.returncode == 0, done.stderr
    assert_alike(learned(folder, "one"), learned(folder, "two"))


@pytest.mark.slow  # in threads every family does it in test_contract.py
def test_features_divided_among_two_processes(folder: Path) -> None:
    divisible = {name: settings for name, settings in METHODS.items() if train.METHODS[name].divisible}
    assert len(divisible) == 8
    path = str(recipe(folder, divisible, 'parallel = "features"'))
    unmix("train", path, "--name", "one", cwd=folder)
    done = torchrun(folder, path, "--name", "two")
    assert done.returncode == 0, done.stderr
    assert_alike(learned(folder, "one"), learned(folder, "two"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "dies_at", "n_saved"),
    [
        ("data", ("checkpoints/step-*", "2"), 1),
        ("features", ("checkpoints/step-*", "2"), 1),  # all parts of step 20 are there
        ("features", ("checkpoints/part-*-00001-*", "2"), 1),  # the second process has not written its part
        ("features", ("sae_weights.safetensors", "1"), 2),  # the dictionary is being made of step 30's parts
    ],
)
def test_another_number_of_processes_goes_on_where_the_first_was_killed(
    folder: Path, parallel: str, dies_at: tuple[str, str], n_saved: int
) -> None:
    methods = {m: METHODS[m] for m in ("topk", "batch_topk")}
    path = str(recipe(folder, methods, f'parallel = "{parallel}"'))
    unmix("train", path, "--name", "one", cwd=folder)
    done = torchrun(folder, path, "--name", "two", module=("tests.dying", f"*/topk-*/{dies_at[0]}", dies_at[1]))
    assert done.returncode != 0
    assert len(list((folder / "runs/two/train" / HOOK).glob("topk-*/checkpoints/step-*"))) == n_saved
    assert not learned(folder, "two")
    shutil.copytree(folder / "runs/two", folder / "runs/three")
    unmix("train", path, "--name", "two", cwd=folder)
    done = torchrun(folder, path, "--name", "three", n=3)
    assert done.returncode == 0, done.stderr
    for name in ("two", "three"):
        assert_alike(learned(folder, "one"), learned(folder, name))
        assert not list((folder / "runs" / name).rglob("part-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "handled"), [("SIGTERM", "SIGTERM"), ("SIGUSR1", "SIGTERM,SIGUSR1"), ("SIGUSR1", "SIGTERM")]
)
def test_a_job_that_is_preempted_leaves_no_process_and_goes_on_with_one_or_two(
    folder: Path, number: str, handled: str
) -> None:
    """The signal goes to torchrun, in the middle of the save of step 10; of one that it does not handle it dies."""
    path = str(recipe(folder, {m: METHODS[m] for m in ("topk", "batch_topk")}))
    unmix("train", path, "--name", "undisturbed", cwd=folder)
    dying = ("tests.dying", "*/checkpoints/step-*", f"1:{number}:torchrun")
    done = torchrun(folder, path, "--name", "two", module=dying, options=("--signals-to-handle", handled))
    assert done.returncode != 0
    wait_until_no_process_is_in(folder)
    by = "the end of torchrun" if number not in handled else number
    (line,) = re.findall("^unmix: (.*)$", done.stderr, re.MULTILINE)
    kept = f"2 dictionaries at {HOOK} saved at step 10 of 30"
    assert line == f"stopped by {by}: {kept}; run the same command again, it goes on from there"
    assert not list((folder / "runs/two").glob("leases/alive/*"))
    shutil.copytree(folder / "runs/two", folder / "runs/one")
    unmix("train", path, "--name", "one", cwd=folder)
    done = torchrun(folder, path, "--name", "two")
    assert done.returncode == 0, done.stderr
    for name in ("one", "two"):
        assert_alike(learned(folder, "undisturbed"), learned(folder, name))


def wait_until_no_process_is_in(folder: Path) -> None:
    """Raises: after a minute there is one."""
    end = time.monotonic() + 60
    while left := [p for p in map(working_folder, Path("/proc").glob("[0-9]*/cwd")) if p == folder]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def working_folder(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:  # it has ended
        return None


class Moved:
    """Numbers of the largest tensor that went through each collective."""

    def __init__(self) -> None:
        self.largest: Counter = Counter()
        for name in ("all_reduce", "all_gather", "broadcast"):
            setattr(dist, name, self.counting(name, getattr(dist, name)))

    def counting(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            x = args[1] if name == "all_gather" else args[0]
            self.largest[name] = max(self.largest[name], x.numel())
            return real(*args, **options)

        return call


def train_in_process(ranks: Ranks, path: str, name: str) -> tuple[int, list[int]]:
    """(numbers of the largest tensor that processes exchanged once they had begun, d_sae of what was made a dictionary)."""
    os.chdir(Path(path).parent)
    made, moved, whole = [], Moved(), FamilyLearner.to_dictionary

    def to_dictionary(learner: FamilyLearner, provenance: dict) -> FeatureDictionary:
        made.append(len(learner.model.W_dec))
        return whole(learner, provenance)

    FamilyLearner.to_dictionary = to_dictionary
    keep = FamilyLearner._keep_own_features

    def begin(learner: FamilyLearner) -> None:
        keep(learner)
        if learner.ranks.splits_features:
            moved.largest.clear()

    FamilyLearner._keep_own_features = begin
    loaded = load_recipe(path, [], name)
    run_train(Run(loaded, Path("runs") / name, "cpu"))
    return max(moved.largest.values()), made


def test_no_process_but_the_first_ever_holds_all_features(folder: Path) -> None:
    """Of 480 features of 16 coordinates nothing as large as half of W_dec is exchanged, and one process makes the whole."""
    methods = {m: METHODS[m] for m in ("topk", "tied")}  # one that resamples
    path = recipe(folder, methods, 'parallel = "features"')
    path.write_text(path.read_text().replace("d_sae = 48", "d_sae = 480"))
    first, second = in_processes(2, "features", train_in_process, str(path), "two")
    assert first[1] == [480, 480]
    assert second[1] == []
    assert max(first[0], second[0]) < 480 * 16 // 2
    assert {len(d.W_dec) for d in learned(folder, "two").values()} == {480}


def test_what_cannot_be_divided_is_refused(folder: Path) -> None:
    path = str(recipe(folder, {"matryoshka": METHODS["matryoshka"]}, 'parallel = "features"'))
    done = unmix("train", path, cwd=folder, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("unmix: train.matryoshka at blocks.0.hook_resid_post: parallel")
    assert os.listdir(folder) == ["activations.zarr", "two.toml"] or not (folder / "runs").exists()


def test_more_data_points_than_rows_to_begin_from_are_refused(folder: Path) -> None:
    path = str(recipe(folder, {"topk": METHODS["topk"] + "\ninit = 'data'"}))
    done = unmix("train", path, "--set", "train.topk.d_sae=5000", cwd=folder, check=False)
    assert done.returncode == 2
    assert "begins from 5000 training rows, the store has" in done.stderr
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE = 'abc' in the environment, expected 1 to 1000000"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE = '0'"),
        ({"RANK": "-1"}, "RANK = '-1' in the environment, expected 0 to"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK = 2 in the environment, but WORLD_SIZE = 2"),
        ({"RANK": "1"}, "RANK = 1 in the environment, but WORLD_SIZE = 1"),
        ({"WORLD_SIZE": "2"}, "RANK is not set in the environment"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "::1", "MASTER_PORT": "70000"}, "MASTER_PORT = '70000'"),
        ({"RANK": "1_0", "WORLD_SIZE": "20"}, "RANK = '1_0'"),
    ],
)
def test_an_environment_that_torchrun_did_not_make_is_told(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        Ranks.join("data", "cpu")
