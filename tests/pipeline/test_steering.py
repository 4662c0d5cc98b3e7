"""unmix steer: what it says is what the same change does in transformers' model."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.features.files import FEATURES, write_table
from pipeline.models.files import ModelFiles
from pipeline.score.histograms import ActivationHistogram
from pipeline.score.results import write_results
from pipeline.steered import LEAST_PROBABILITY, places
from stores import FeatureDictionary
from stores.formats.found import path_digest
from stores.manifest import commit_json
from stores.site import Site
from stores.spec import Spec
from tests.conftest import unmix

SITE, NAME, PROMPT = "blocks.0.hook_resid_post", "topk-d24-k4-s0", "def walk(path):"
LARGEST = 6.0  # of every feature but the last, which is dead


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of run/, with the dictionary NAME, and another that is neither scored nor described."""
    top = tmp_path_factory.mktemp("steered")
    draw = torch.Generator().manual_seed(0)
    told = {
        "model": str(tiny_model),
        "model_digest": ModelFiles.find(str(tiny_model)).digest,
        "weight_processing": "none",
    }
    for name in (NAME, "other"):
        spec = Spec("topk", 32, 24, Site.at(SITE), k=4, provenance=told)
        weights = (torch.randn(shape, generator=draw) for shape in ((32, 24), (24,), (24, 32), (32,)))
        FeatureDictionary(spec, *weights).save(top / "run" / "train" / SITE / name)
        commit_json(top / "run" / "train" / SITE / name / "manifest.json", {})
    (top / "none").mkdir()
    manifest = {"inputs": {"dictionary_digest": path_digest(top / "run" / "train" / SITE / NAME)}}
    features = top / "run" / "features" / SITE / NAME
    features.mkdir(parents=True)
    largest = np.array([LARGEST] * 23 + [0.0], np.float32)
    write_table(features / FEATURES, {"feature": np.arange(24, dtype=np.int32), "max": largest})
    commit_json(features / "manifest.json", manifest)
    return top


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(tiny_model).eval()


def steer(folder: Path, *arguments: str, name: str = NAME) -> dict[str, Any]:
    told = ("--prompt", PROMPT, "--tokens", "8", "--device", "cpu", "--json")
    return json.loads(unmix("steer", "run", name, *arguments, *told, cwd=folder).stdout)


CHANGES = {  # options → the same as a splice has it, and where; features 1 and 5 are active on the prompt, 3 and 7 are not
    ("3",): ({"clamp": {3: LARGEST}}, None),
    ("3=2", "7", "--clamp", "-0.5"): ({"clamp": {3: 2 * LARGEST, 7: -0.5 * LARGEST}}, None),
    ("3", "--clamp", "9", "--raw"): ({"clamp": {3: 9.0}}, None),
    ("3", "7=0.5", "--add", "2"): ({"add": {3: 2 * LARGEST, 7: 0.5 * LARGEST}}, None),
    ("5", "23", "--scale", "3"): ({"scale": {5: 3.0, 23: 3.0}}, None),
    ("1", "5", "--ablate"): ({"clamp": {1: 0.0, 5: 0.0}}, None),
    ("3", "--clamp", "4", "--positions", "2:4,6:"): ({"clamp": {3: 4 * LARGEST}}, [2, 3, *range(6, 40)]),
}


@pytest.mark.parametrize("arguments", CHANGES)
def test_it_says_what_the_change_does(folder: Path, model: Any, arguments: tuple[str, ...]) -> None:
    """transformers generates with a cache. BOS is left as it is."""
    changes, positions = CHANGES[arguments]
    dictionary = FeatureDictionary.load(folder / "run" / "train" / SITE / NAME)
    files, found = ModelFiles.find(model.config._name_or_path), steer(folder, *arguments)
    ids = torch.tensor([[files.bos, *files.tokenizer.encode(PROMPT).ids]])
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    said = lambda: files.tokenizer.decode(model.generate(ids, **options)[0, ids.shape[1] :].tolist())  # noqa: E731
    assert found["without"] == said()
    with torch.no_grad():
        without = model(ids).logits[0, -1].double().log_softmax(-1)
    with dictionary.spliced(model, keep_error=True, positions=positions or range(1, 40), **changes), torch.no_grad():
        assert found["with"] == said()
        with_ = model(ids).logits[0, -1].double().log_softmax(-1)
    assert found["kl"] == pytest.approx(float((without.exp() * (without - with_)).sum()), rel=1e-4, abs=1e-6)
    by = torch.where(torch.maximum(without, with_).exp() >= LEAST_PROBABILITY, with_ - without, torch.nan)
    for side, most in (("raised", by.nan_to_num(-9).argmax()), ("lowered", by.nan_to_num(9).argmin())):
        first = found[side][0]
        assert first["id"] == int(most)
        assert [first["without"], first["with"]] == pytest.approx([float(without[most]), float(with_[most])], abs=1e-4)
    z = dictionary.activations(model, PROMPT, files.tokenizer)[0]
    for feature, values in found["activations"].items():
        assert values == pytest.approx(z[:, int(feature)].tolist(), abs=1e-4)


def test_a_seed_draws_the_same_with_and_without(folder: Path) -> None:
    """So that a change of nothing changes nothing, and what differs is the change's."""
    drawn = [steer(folder, "3", "--scale", "1", "--temperature", "1", "--seed", seed) for seed in ("1", "1", "2")]
    assert drawn[0] == drawn[1]
    assert drawn[0]["without"] == drawn[0]["with"]
    assert drawn[0]["without"] != drawn[2]["without"]
    assert drawn[0]["kl"] == pytest.approx(0, abs=1e-9)


def test_without_a_report_the_histogram_tells_the_largest_activation(folder: Path) -> None:
    """To half an octave, and only that of this very dictionary."""
    run = folder / "run"
    histogram = ActivationHistogram.empty(24)
    histogram.counts[3, 45] = 2
    columns = dict.fromkeys(
        ["site", "name", "method", "d_in", "d_out", "d_sae", "signed", "sparse", "l0", "fvu", "dead", "n_rows"]
    )
    write_results(run / "score" / SITE / "other", columns, histogram)
    failed = unmix("steer", "run", "other", "3", "--prompt", PROMPT, cwd=folder, check=False)
    assert (failed.returncode, "run `unmix score`" in failed.stderr) == (2, True)
    manifest = {"inputs": {"dictionary_digest": path_digest(run / "train" / SITE / "other")}}
    commit_json(run / "score" / SITE / "other" / "manifest.json", manifest)
    (change,) = steer(folder, "3=0.5", name="other")["changes"]
    assert change == {"feature": 3, "kind": "clamp", "value": 0.5 * 2**3, "largest": 2**3, "exact": False}
    assert "about 8" in unmix("steer", "run", "other", "3", "--prompt", PROMPT, cwd=folder).stdout


def test_the_terminal_shows_both_texts_and_what_is_changed(folder: Path) -> None:
    found = steer(folder, "3", "--clamp", "4")
    shown = unmix(
        "steer", "run", f"{SITE}/{NAME}", "3", "--clamp", "4", "--prompt", PROMPT, "--tokens", "8", cwd=folder
    ).stdout
    assert f"{SITE}/{NAME}\nfeature 3: set to 24; its largest activation on held-out text is 6" in shown
    assert re.search(f"KL divergence {found['kl']:.3g} nats", shown)
    without, _, with_ = re.split(r"-- without -+\n", shown)[1].partition("\n\n-- with ")
    assert without.startswith(PROMPT)
    assert with_.partition("\n")[2].startswith(PROMPT)
    assert without != with_.partition("\n")[2].rstrip("\n")
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)


def test_positions_are_counted_from_bos() -> None:
    assert places("3", 9) == [3]
    assert places("3:5", 9) == [3, 4]
    assert places("7:", 9) == [7, 8]
    assert places(":2, 4 ,8:99", 9) == [0, 1, 4, 8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", NAME, "24"), f"feature 24: {SITE}/{NAME} has features 0 to 23"),
        (("run", NAME, "x"), "feature 'x': expected INDEX or INDEX=VALUE"),
        (("run", NAME, "3=a"), "'a' is no number"),
        (("run", NAME, "3=nan"), "expected a finite number"),
        (("run", NAME, "3", "3=2"), "feature 3 is named twice"),
        (("run", NAME, "3=2", "--ablate"), "--ablate takes no value"),
        (("run", NAME, "3", "--ablate", "--clamp", "1"), "give one of --clamp, --scale, --add and --ablate"),
        (("run", NAME, "3", "--scale", "2", "--add", "1"), "give one of --clamp"),
        (("run", NAME, "23"), "the largest activation of feature 23 .* is 0 on held-out rows.*give --raw"),
        (("run", "topk", "3"), "no dictionary is called topk in run: name one of .*other"),
        (("none", NAME, "3"), "none has no trained dictionary: run `unmix train` on the recipe of none first"),
        (("nowhere", NAME, "3"), "there is no folder nowhere"),
        (("run", NAME, "3", "--tokens", "64"), "and 64 more are .* takes 64, give a shorter one"),
        (("run", NAME, "3", "--positions", "a"), "--positions a: expected such as 3, 3:10"),
        (("run", NAME, "3", "--positions", "60:"), "none of the .* positions of the prompt and what follows is meant"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    failed = unmix("steer", *arguments, "--prompt", PROMPT, cwd=folder, check=False)
    assert failed.returncode == 2
    assert re.search(message, failed.stderr)
    assert failed.stderr.count("\n") == 1
