"""circuit-tracer's cross-layer transcoders: a dictionary of each layer, which together compute what all of it does."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.found import dictionaries_in
from stores.formats.stated import Stated
from stores.site import Site
from tests.stores.formats.making import D_SAE, D, rows

N = 3
CONFIG = "model_name: gpt2\nmodel_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\n"


def write(folder: Path, jumprelu: bool = True) -> list[dict[str, torch.Tensor]]:
    """As its to_safetensors does. Returns the weights of each layer."""
    g, layers = torch.Generator().manual_seed(0), []
    draw = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    for i in range(N):
        encoder = {f"W_enc_{i}": draw(D_SAE, D), f"b_enc_{i}": draw(D_SAE), f"b_dec_{i}": draw(D)}
        encoder |= {f"threshold_{i}": draw(D_SAE).abs()} if jumprelu else {}
        decoder = {f"W_dec_{i}": draw(D_SAE, N - i, D)}
        save_file(encoder, folder / f"W_enc_{i}.safetensors")
        save_file(decoder, folder / f"W_dec_{i}.safetensors")
        layers.append({name.rpartition("_")[0]: x for name, x in (encoder | decoder).items()})
    (folder / "config.yaml").write_text(f"{CONFIG}feature_output_hook: hook_mlp_out\n")
    return layers


@pytest.mark.parametrize("jumprelu", [False, True])
def test_its_layers_sum_to_the_whole(tmp_path: Path, jumprelu: bool) -> None:
    layers, x = write(tmp_path, jumprelu), rows(N * 40).view(N, 40, D)
    found, expected = torch.zeros(N, 40, D), torch.stack([w["b_dec"] for w in layers])[:, None].repeat(1, 40, 1)
    for i, w in enumerate(layers):
        pre = x[i] @ w["W_enc"].T + w["b_enc"]
        z = pre.relu() * (pre > w.get("threshold", torch.zeros(1)))
        expected[i:] += torch.einsum("bf,fld->lbd", z, w["W_dec"])
        ours = FeatureDictionary.load(tmp_path / f"W_enc_{i}.safetensors")
        torch.testing.assert_close(ours.encode(x[i]), z, rtol=0, atol=1e-5)
        found[i:] += ours(x[i]).view(40, N - i, D).transpose(0, 1)
        writes = tuple(f"blocks.{later}.hook_mlp_out" for later in range(i, N))
        assert ours.site == Site((f"blocks.{i}.hook_resid_mid",), writes)
        assert [part.shape for part in ours.written().values()] == [(D_SAE, D)] * (N - i)
        ours.save(tmp_path / f"ours-{i}")
        torch.testing.assert_close(FeatureDictionary.load(tmp_path / f"ours-{i}")(x[i]), ours(x[i]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_folder_of_one_is_a_dictionary_a_layer(tmp_path: Path) -> None:
    write(tmp_path)
    names = [f"W_enc_{i}.safetensors" for i in range(N)]
    assert [path.name for path in dictionaries_in(tmp_path)] == names
    with pytest.raises(ValueError, match="holds 3 dictionaries, W_enc_0.safetensors, .*: name one of them"):
        FeatureDictionary.load(tmp_path)
    with pytest.raises(ValueError, match="no feature dictionary at .*W_dec_0.safetensors"):
        FeatureDictionary.load(tmp_path / "W_dec_0.safetensors")
    convert(tmp_path, tmp_path / "all", "saelens", Stated())
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [name.partition(".")[0] for name in names]
    with pytest.raises(ValueError, match="circuit-tracer has no transcoder of d_in = 8 and d_out = 24"):
        convert(tmp_path / "W_enc_0.safetensors", tmp_path / "again", "circuit-tracer", Stated())


def test_what_is_none_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path, decoder = tmp_path / "W_enc_1.safetensors", tmp_path / "W_dec_1.safetensors"
    sound, W_dec = load_file(path), load_file(decoder)["W_dec_1"]

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            FeatureDictionary.load(path)
        assert str(tmp_path) in str(error.value)

    for bad in (W_dec[:, 0], torch.zeros(0, 10**9, D), W_dec[..., :4].contiguous(), W_dec[:, :0]):
        save_file({"W_dec_1": bad.contiguous()}, decoder)
        refused(r"W_dec_1 is \(.*, expected \(d_sae, layers, d_model\) with \(8,\) by b_dec_1")
    save_file({"W_dec_0": W_dec}, decoder)
    refused("'W_dec_0' has no part in a cross-layer transcoder")
    decoder.unlink()
    refused("W_dec_1.safetensors is no file")
    save_file({"W_dec_1": W_dec}, decoder)
    save_file({name: x for name, x in sound.items() if name != "b_dec_1"}, path)
    refused("W_enc_1.safetensors lacks b_dec_1")
    save_file({**sound, "threshold_1": -torch.ones(D_SAE)}, path)
    refused("20 thresholds are less than 0")
    save_file(sound, path)
    (tmp_path / "config.yaml").write_text("model_kind: transcoder_set\n")
    refused(
        "model_kind is 'transcoder_set', only 'transcoder_set' of layer_N.safetensors and 'cross_layer_transcoder' of"
    )
