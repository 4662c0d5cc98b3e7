"""The libraries themselves read what is written for them, compute the same, and what they write is read.

`make interop` installs them and runs this file: dictionary_learning and circuit-tracer without what they ask for (torchvision
of torch's own build; transformers below 5, huggingface_hub below 1), which is not needed for what is tested here.
"""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated
from tests.stores.formats.making import D_SAE, KINDS, MLP, SITE, D, Kind, make, rows
from tests.stores.formats.test_round_trips import passes

pytestmark = pytest.mark.interop
NOTHING = Stated()


def library(name: str) -> ModuleType:
    return pytest.importorskip(name, reason=f"{name.split('.')[0]} is not installed", exc_type=ImportError)


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def kinds(to: str) -> pytest.MarkDecorator:
    found = [kind for kind in KINDS if passes(kind, to)]
    return pytest.mark.parametrize("kind", found, ids=lambda kind: kind.name)


def given(kind: Kind, folder: Path, to: str) -> FeatureDictionary:
    dictionary = make(kind)
    dictionary.save(folder / "ours")
    convert(folder / "ours", folder / "theirs", to, NOTHING)
    return dictionary


def returned(path: Path, dictionary: FeatureDictionary) -> None:
    site = dictionary.site.name if len(dictionary.site.writes) == 1 else SITE.name
    again = FeatureDictionary.load(path, hook_point=site)
    same(again.encode(rows()), dictionary.encode(rows()))
    same(again(rows()), dictionary(rows()))


@kinds("saelens")
def test_saelens(tmp_path: Path, kind: Kind) -> None:
    saelens = library("sae_lens")
    dictionary = given(kind, tmp_path, "saelens")
    theirs = saelens.SAE.load_from_disk(str(tmp_path / "theirs"), device="cpu")
    same(theirs.encode(rows()), dictionary.encode(rows()))
    same(theirs(rows()), dictionary(rows()))
    theirs.save_model(tmp_path / "again")
    returned(tmp_path / "again", dictionary)


@kinds("sparsify")
def test_sparsify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind) -> None:
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # which it would use on a CPU, too, and fail
    sparsify = library("sparsify")
    dictionary, x = given(kind, tmp_path, "sparsify"), rows()
    theirs = sparsify.SparseCoder.load_from_disk(tmp_path / "theirs", device="cpu")
    top, indices, _ = theirs.encode(x)
    same(torch.zeros(len(x), D_SAE).scatter(-1, indices, top.detach()), dictionary.encode(x))
    same(theirs(x).sae_out.detach(), dictionary(x))
    theirs.save_to_disk(tmp_path / "again")
    returned(tmp_path / "again", dictionary)


def dictionary_learning_class(name: str) -> type:
    module = {
        "AutoEncoderTopK": "trainers.top_k",
        "BatchTopKSAE": "trainers.batch_top_k",
        "MatryoshkaBatchTopKSAE": "trainers.matryoshka_batch_top_k",
    }.get(name, "dictionary")
    return getattr(library(f"dictionary_learning.{module}"), name)


@kinds("dictionary_learning")
def test_dictionary_learning(tmp_path: Path, kind: Kind) -> None:
    library("dictionary_learning.dictionary")
    dictionary, x = given(kind, tmp_path, "dictionary_learning"), rows()
    config = (tmp_path / "theirs" / "config.json").read_text()
    found = dictionary_learning_class(json.loads(config)["trainer"]["dict_class"])
    theirs = found.from_pretrained(tmp_path / "theirs" / "ae.pt")
    same(theirs.encode(x).detach(), dictionary.encode(x))
    same(theirs(x).detach(), dictionary(x))
    (tmp_path / "again").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "again" / "ae.pt")
    (tmp_path / "again" / "config.json").write_text(config)
    returned(tmp_path / "again", dictionary)


@pytest.mark.parametrize("name", ["AutoEncoder", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_classes_of_dictionary_learning_that_are_read_alone(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    found = dictionary_learning_class(name)
    theirs = found(D, D_SAE, *([4] if "TopK" in name else []), *([[8, 12]] if "Matryoshka" in name else []))
    for weight in theirs.parameters():
        weight.data = torch.randn_like(weight)
    if "TopK" in name:
        theirs.threshold.fill_(0.7)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": 4, "lm_name": "m"}}))
    ours, x = FeatureDictionary.load(tmp_path, hook_point=SITE.name), rows()
    same(ours.encode(x), theirs.encode(x).detach())
    same(ours(x), theirs(x).detach())
    assert ours.spec.architecture == ("jumprelu" if "TopK" in name else "standard")
    assert (ours.site, ours.provenance) == (SITE, {"model": "m"})


@kinds("circuit-tracer")
def test_circuit_tracer(tmp_path: Path, kind: Kind) -> None:
    module = library("circuit_tracer.transcoder.single_layer_transcoder")
    dictionary, x = given(kind, tmp_path, "circuit-tracer"), rows()
    files = {0: str(tmp_path / "theirs" / "layer_0.safetensors")}
    hooks = "hook_resid_mid", "hook_mlp_out"
    for lazy in (False, True):
        theirs = module.load_transcoder_set(
            files, "", *hooks, device=torch.device("cpu"), lazy_encoder=lazy, lazy_decoder=lazy
        )
        same(theirs[0].encode(x).detach(), dictionary.encode(x))
        same(theirs[0](x).detach(), dictionary(x))
    module.load_transcoder_set(
        files, "", *hooks, device=torch.device("cpu"), lazy_encoder=False, lazy_decoder=False
    ).to_safetensors(str(tmp_path / "again"))
    (tmp_path / "again" / "config.yaml").write_text(
        "model_name: gpt2\nmodel_kind: transcoder_set\n"
        "feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    again = FeatureDictionary.load(tmp_path / "again" / "layer_0.safetensors")
    same(again(x), dictionary(x))
    assert (again.site, again.provenance) == (MLP, {"model": "gpt2"})


@pytest.mark.parametrize("activation", ["relu", "jump_relu"])
def test_a_cross_layer_transcoder_of_circuit_tracer(tmp_path: Path, activation: str) -> None:
    module = library("circuit_tracer.transcoder.cross_layer_transcoder")
    torch.manual_seed(0)
    theirs = module.CrossLayerTranscoder(
        3, D_SAE, D, activation, lazy_decoder=False, device=torch.device("cpu"), dtype=torch.float32
    )
    for weight in theirs.parameters():
        weight.data = torch.rand_like(weight) / 10
    theirs.to_safetensors(str(tmp_path))
    (tmp_path / "config.yaml").write_text(
        "model_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    x, y_hat = torch.randn(3, 50, D), torch.zeros(3, 50, D)
    codes = theirs.encode(x).detach()
    for layer in range(3):
        ours = FeatureDictionary.load(tmp_path / f"W_enc_{layer}.safetensors")
        same(ours.encode(x[layer]), codes[layer])
        y_hat[layer:] += ours(x[layer]).view(50, 3 - layer, D).transpose(0, 1)
    same(y_hat, theirs(x).detach())
