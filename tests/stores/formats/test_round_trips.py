"""Ours → another library's files → ours."""

import json
from pathlib import Path

import pytest
import torch

from stores.convert import TARGETS, convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated
from tests.stores.formats.making import KINDS, Kind, make, rows

NOTHING = Stated()
README = Path(__file__).parents[3] / "stores" / "README.md"


def passes(kind: Kind, to: str) -> bool:
    try:
        TARGETS[to].check(make(kind).spec)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_a_library_can_hold_comes_back_and_the_rest_is_refused(tmp_path: Path, kind: Kind, to: str) -> None:
    dictionary, x = make(kind), rows()
    dictionary.save(tmp_path / "ours")
    if not passes(kind, to):
        with pytest.raises(ValueError, match=r"ours: .* has no .*; .* can hold it$"):
            convert(tmp_path / "ours", tmp_path / "theirs", to, NOTHING)
        assert [path.name for path in tmp_path.iterdir()] == ["ours"]
        return
    convert(tmp_path / "ours", tmp_path / "theirs", to, NOTHING)
    again = FeatureDictionary.load(tmp_path / "theirs")
    torch.testing.assert_close(again.encode(x), dictionary.encode(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(again(x), dictionary(x), rtol=0, atol=1e-5)
    assert (again.spec.architecture, again.site) == (dictionary.spec.architecture, dictionary.site)
    assert again.provenance["model"] == "gpt2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_the_table_in_the_readme_is_what_passes() -> None:
    rows = [[kind.name, *("yes" if passes(kind, to) else "" for to in TARGETS)] for kind in KINDS]
    table = "\n".join(("| " + " | ".join(row) + " |").replace("|  |", "| |").replace("|  |", "| |") for row in rows)
    assert table in README.read_text(), table


def test_a_set_of_layers_is_one_folder_of_circuit_tracer(tmp_path: Path) -> None:
    ours = [make(Kind("jumprelu", True, True), layer, seed=layer) for layer in range(3)]
    for layer, dictionary in enumerate(ours):
        dictionary.save(tmp_path / "ours" / f"one-{layer}")
    convert(tmp_path / "ours", tmp_path / "set", "circuit-tracer", NOTHING)
    names = ["config.yaml", *(f"layer_{layer}.safetensors" for layer in range(3))]
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == names
    for layer, dictionary in enumerate(ours):
        again = FeatureDictionary.load(tmp_path / "set" / f"layer_{layer}.safetensors")
        assert again.site == dictionary.site
        torch.testing.assert_close(again(rows()), dictionary(rows()), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"set holds 3 dictionaries, layer_0.safetensors, .*: name one of them"):
        FeatureDictionary.load(tmp_path / "set")
    ours[0].save(tmp_path / "ours" / "two-0")
    with pytest.raises(ValueError, match="are both of layer 0"):
        convert(tmp_path / "ours", tmp_path / "again", "circuit-tracer", NOTHING)


def test_several_become_a_folder_each(tmp_path: Path) -> None:
    for name in ("layers.0.mlp", "layers.1.mlp"):
        make(Kind("topk")).save(tmp_path / "ours" / name)
    convert(tmp_path / "ours", tmp_path / "theirs", "sparsify", NOTHING)
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == ["layers.0.mlp", "layers.1.mlp"]


def test_a_folder_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    make(Kind("topk")).save(tmp_path / "ours")
    (tmp_path / "theirs").symlink_to("nowhere")
    with pytest.raises(ValueError, match="theirs is there already, and is not overwritten"):
        convert(tmp_path / "ours", tmp_path / "theirs", "sparsify", NOTHING)
    assert (tmp_path / "theirs").is_symlink()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(Kind("topk")).save(tmp_path / "ours" / name)
    file = tmp_path / "ours" / "b" / "sae_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ValueError, match="was altered"):
        convert(tmp_path / "ours", tmp_path / "more" / "theirs", "sparsify", NOTHING)
    assert not (tmp_path / "more" / "theirs").exists()
    assert not list((tmp_path / "more").glob(".*"))


def test_what_json_has_no_place_for_is_kept_beside_it(tmp_path: Path) -> None:
    kind = Kind("topk", several=True)
    make(kind).save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "sparsify", NOTHING)
    again = FeatureDictionary.load(tmp_path / "theirs")
    assert again.spec.d_writes == make(kind).spec.d_writes
    file = tmp_path / "theirs" / "cfg.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "unmix": {"reads": "../x"}}))
    with pytest.raises(ValueError, match=r"cfg.json: unmix.reads is '../x', expected a list"):
        FeatureDictionary.load(tmp_path / "theirs")
