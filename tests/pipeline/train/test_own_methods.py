"""Methods of the user's own, from a file and from an installed package."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import pipeline.train.families
from pipeline.config import UserError
from pipeline.train.config import TrainConfig
from pipeline.train.own_methods import methods
from pipeline.train.stage import units
from stores import ActivationStore, FeatureDictionary
from tests.conftest import make_store, planted_rows, unmix

HOOK = "blocks.0.hook_resid_post"


def printed() -> str:
    """The family in the README."""
    readme = Path(pipeline.train.families.__file__).with_name("README.md").read_text()
    found = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_store(
        tmp_path / "activations.zarr", n_sequences=200, d={HOOK: 16},
        rows=lambda hook_point, n, d: planted_rows(n, d), chunk_sequences=20,
    )  # fmt: skip
    (tmp_path / "mine.py").write_text(printed())
    (tmp_path / "own.toml").write_text(
        f'store = "{tmp_path}/activations.zarr"\n[train]\nmethod_files = ["mine.py"]\nbatch_size = 64\nn_tokens = 19200\n'
        "[train.log_penalty]\nd_sae = 32\nlr = 1e-2\nseed = [0, 1]\nl0_target = 8\n[score]\n"
    )
    return tmp_path


def test_the_printed_family_is_short() -> None:
    assert len(printed().splitlines()) <= 40


def test_the_printed_family_trains_stacked_and_scores(folder: Path) -> None:
    unmix("train", "own.toml", cwd=folder)
    made = sorted((folder / "runs/own/train" / HOOK).glob("log_penalty-*/cfg.json"))
    assert [path.parent.name for path in made] == [f"log_penalty-d32-l0_8.0-s{seed}" for seed in (0, 1)]
    dictionary = FeatureDictionary.load(made[0].parent)
    assert dictionary.provenance["settings"]["method"]["from"] == "mine.py"
    records = (made[0].parent / "metrics.jsonl").read_text().splitlines()
    last = json.loads(records[-1])
    assert last["fvu"] < 0.35
    assert last["l0"] == pytest.approx(8, rel=0.15)
    unmix("score", "own.toml", cwd=folder)
    assert "log_penalty-d32" in (folder / "runs/own/score/scores.json").read_text()


@pytest.mark.slow
def test_another_file_is_another_dictionary(folder: Path) -> None:
    unmix("train", "own.toml", cwd=folder)
    (folder / "mine.py").write_text(printed().replace("log1p()", "sqrt()"))
    done = unmix("train", "own.toml", cwd=folder, check=False)
    assert done.returncode == 2
    assert "--replace" in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"mine.py: no such file, looked in /"),
        ("x = 1\n1 / 0", r"mine.py, line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(0)", r"mine.py, line 1: SystemExit: 0"),
        ("def f(:", r"mine.py, line 1: SyntaxError"),
        ("import nothing_like_it", r"line 1: ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("x = 1", r'it has no METHODS, expected METHODS = {"name": MyFamily}'),
        ("METHODS = [1]", r"METHODS is \[1\], expected"),
        ("METHODS = {'a': 1}", r"mine.py: a is 1, expected a subclass of pipeline.train.families.Family"),
        ("METHODS = {'A b': 1}", r"'A b' is no name of a method"),
        ("METHODS = {'topk': 1}", r"topk is the name of a built-in method already, choose another"),
        ("METHODS = {'seed': 1}", r"seed is the name of a key of \[train\] already"),
    ],
)
def test_a_bad_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.py").write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        methods(["mine.py"], ["seed"])
    assert "\n" not in str(raised.value)


def test_a_users_own_methods_are_named_where_methods_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    store = ActivationStore.open(folder / "activations.zarr")
    common: dict[str, Any] = {"batch_size": 64, "n_tokens": 64, "method_files": ["mine.py"]}
    with pytest.raises(UserError, match=r"trains nothing: .* METHOD one of topk, .*, log_penalty"):
        units(TrainConfig(**common), folder, store)
    undivided = TrainConfig(**common, parallel="features", methods={"matryoshka": [{"d_sae": 32, "k": 4}]})
    with pytest.raises(UserError, match=r'parallel = "features" is for topk, .*, log_penalty, set'):
        units(undivided, folder, store)


LOSS = re.compile(r"    def loss.*?(?=    def to_dictionary)", re.DOTALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: LOSS.sub("", text), r"mine.py: log_penalty: LogPenalty has no loss$"),
        (
            lambda text: text.replace("    Config = LogPenaltyConfig\n", "    Config = int\n"),
            r"Config is <class 'int'>",
        ),
    ],
)
def test_a_family_that_lacks_a_part_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(change(printed()))
    with pytest.raises(UserError, match=message):
        methods(["mine.py"])


def test_a_family_that_breaks_the_contract_is_told_before_anything_is_trained(folder: Path) -> None:
    (folder / "mine.py").write_text(
        printed().replace("self.raw_weights())", "self.raw_weights() | {'b_enc': self.b_enc + 1})")
    )
    done = unmix("train", "own.toml", cwd=folder, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "unmix: train.log_penalty (mine.py) breaks the contract of families: LogPenalty as an autoenc"
    )
    assert "its dictionary has mse" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((folder / "runs/own/train").glob("*/*/sae_weights.safetensors"))


def test_a_family_whose_settings_have_no_defaults_is_told(folder: Path) -> None:
    (folder / "mine.py").write_text(printed().replace("Field(default=0.5, gt=0", "Field(gt=0"))
    done = unmix("train", "own.toml", "--set", "train.log_penalty.epsilon=1.0", cwd=folder, check=False)
    assert done.returncode == 2
    assert "LogPenaltyConfig needs a default for epsilon" in done.stderr


def test_an_installed_package_offers_methods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_package-1.2.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: their_package\nVersion: 1.2\n")
    (package / "entry_points.txt").write_text("[unmix.methods]\nlog_penalty = their_package:LogPenalty\n")
    (tmp_path / "their_package.py").write_text(printed())
    monkeypatch.syspath_prepend(tmp_path)
    found = methods()["log_penalty"]
    assert found.origin == {"from": "their_package 1.2"}
    assert found.config(d_sae=8).l0_target is None  # type: ignore[attr-defined]
    (package / "entry_points.txt").write_text("[unmix.methods]\nlog_penalty = their_package:NotThere\n")
    with pytest.raises(UserError, match="installed package their_package 1.2: log_penalty = .*AttributeError"):
        methods()
