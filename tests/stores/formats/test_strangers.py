"""Folders that somebody else filled: one line that names the file, no memory taken, no code run."""

import io
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated
from tests.stores.formats.making import D_SAE, D, Kind, make
from tests.stores.formats.test_reading import tensors

MIB = 1 << 20
BIG = 10**6


def refused(path: Path, message: str) -> None:
    """In one line, with less than 32 MiB taken by Python on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            FeatureDictionary.load(path)
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


FORMATS = ["saelens", "sparsify", "dictionary_learning", "circuit-tracer", "plain"]
WEIGHTS = ["sae_weights.safetensors", "sae.safetensors", "ae.pt", "layer_0.safetensors", "a.safetensors"]


def folder_of(path: Path, to: str) -> Path:
    """A sound one."""
    if to == "plain":
        path.mkdir()
        save_file(tensors(), path / "a.safetensors")
        return path
    make(Kind("standard", transcoder=to == "circuit-tracer")).save(path.parent / "ours")
    convert(path.parent / "ours", path, to, Stated())
    (path / "provenance.json").unlink(missing_ok=True)
    return path


@pytest.mark.parametrize(("to", "weights"), zip(FORMATS, WEIGHTS, strict=True))
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, to: str, weights: str) -> None:
    folder = folder_of(tmp_path / "theirs", to)
    FeatureDictionary.load(folder, apply_b_dec_to_input=None if to != "plain" else False)
    file = folder / weights
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    stated = {} if to != "plain" else {"apply_b_dec_to_input": False}
    with pytest.raises(ValueError, match=rf"{weights} is a link to .*elsewhere, out of its folder"):
        FeatureDictionary.load(folder, **stated)
    (tmp_path / "elsewhere").rename(folder / "kept")
    file.unlink()
    file.symlink_to("kept")  # one that stays in it
    FeatureDictionary.load(folder, **stated)


def test_a_hub_snapshots_links_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0" / "layer_3"
    make(Kind("topk")).save(snapshot)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    for file in list(snapshot.iterdir()):
        blob = tmp_path / "models--a--b" / "blobs" / file.name[:4]
        file.rename(blob)
        file.symlink_to(blob)
    assert FeatureDictionary.load(snapshot).d_sae == D_SAE


@pytest.mark.parametrize("to", ["saelens", "sparsify", "circuit-tracer", "plain"])
@pytest.mark.parametrize("n", [2**60, 2**63])
def test_a_header_of_many_bytes_is_refused(tmp_path: Path, to: str, n: int) -> None:
    folder = folder_of(tmp_path / "theirs", to)
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(n.to_bytes(8, "little") + b"{}")
    with pytest.raises(ValueError, match=f"{file.name} is damaged: its header claims {n} bytes, the file has 10"):
        FeatureDictionary.load(folder)


@pytest.mark.parametrize("name", ["sae_weights.safetensors", "a.safetensors"])
def test_a_million_keys_are_refused(tmp_path: Path, name: str) -> None:
    make(Kind("topk")).save(tmp_path)
    if name == "a.safetensors":
        (tmp_path / "cfg.json").unlink()
        (tmp_path / "sae_weights.safetensors").unlink()
    one = '{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = ("{" + ",".join(f'"w{i}":{one}' for i in range(BIG)) + "}").encode()
    (tmp_path / name).write_bytes(len(header).to_bytes(8, "little") + header)
    refused(
        tmp_path / name if name == "a.safetensors" else tmp_path, f"{name}: its header has .* bytes, expected at most"
    )


def test_more_tensors_than_any_dictionary_has_are_refused(tmp_path: Path) -> None:
    save_file({f"w{i}": torch.zeros(1) for i in range(1001)}, tmp_path / "a.safetensors")
    refused(tmp_path, "a.safetensors holds 1001 tensors, expected at most 1000")


class Evil:
    def __reduce__(self) -> tuple[Callable, tuple]:
        return (Path.touch, (Path("ran"),))


def saved(x: object) -> bytes:
    file = io.BytesIO()
    torch.save(x, file)
    return file.getvalue()


def stretched() -> torch.Tensor:
    """A tensor of 10^12 numbers in a file of one."""
    return torch.zeros(1).as_strided((BIG, BIG), (0, 0))


TORCH = {
    "code": (lambda: saved({"W": Evil()}), "a.pt holds .*getattr.* besides tensors, and is not read: where you trust"),
    "module": (lambda: saved(torch.nn.Linear(2, 2)), r"a.pt holds torch.nn.modules.linear.Linear besides tensors"),
    "bytes": (lambda: saved({"W": bytearray(9)}), "a.pt holds .* besides tensors"),
    "nested": (lambda: saved({"model": tensors()}), "a.pt holds dict, expected a dict of tensors by names"),
    "list": (lambda: saved([torch.zeros(1)]), "a.pt holds list, expected a dict of tensors by names"),
    "stretched": (lambda: saved({"W_enc": stretched()}), r"a.pt: 'W_enc' is of torch.float32 and \(1000000, 1000000\)"),
    "pickle": (lambda: pickle.dumps(Evil()), "a.pt is a pickle, or a file of torch.save before 1.6"),
    "empty": (lambda: b"", "a.pt is a pickle, or a file of torch.save before 1.6"),
    "cut": (lambda: saved(tensors())[:-30], "a.pt is damaged: not a zip file, or cut"),
    "nan": (
        lambda: saved({**tensors(), "b_enc": torch.full((D_SAE,), float("nan"))}),
        "20 of 20 numbers in b_enc are not",
    ),
    "whole": (lambda: saved({**tensors(), "b_enc": torch.zeros(D_SAE, dtype=torch.int64)}), "a.pt: b_enc is of I64"),
}


@pytest.mark.parametrize("case", TORCH)
def test_a_pickle_that_may_hold_more_than_tensors_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = TORCH[case]
    (tmp_path / "a.pt").write_bytes(write())
    refused(tmp_path / "a.pt", message)
    assert not (tmp_path / "ran").exists()


def npy(shape: tuple[int, ...], dtype: str = "<f4", data: bytes = b"") -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def zipped(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def objects() -> bytes:
    file = io.BytesIO()
    np.savez(file, W_enc=np.array([Evil()], dtype=object))
    return file.getvalue()


NPZ = {
    "claims": (
        lambda: zipped({"W_enc.npy": npy((BIG, BIG))}),
        r"W_enc.npy is of float32 and \(1000000, 1000000\) in 0 bytes",
    ),
    "negative": (lambda: zipped({"W_enc.npy": npy((-1,))}), r"a.npz is damaged: W_enc.npy, shape \(-1,\)"),
    "objects": (objects, r"W_enc.npy is of object and \(1,\)"),
    "text": (lambda: zipped({"W_enc.npy": npy((1,), "<U9", b" " * 36)}), "W_enc.npy is of <U9"),
    "bomb": (lambda: zipped({"W_enc.npy": bytes(64 * MIB)}, zipfile.ZIP_DEFLATED), "unpacks from .* to 67108864 bytes"),
    "other": (lambda: zipped({"../x": b""}), "'../x' is no array, or is there twice"),
    "long": (
        lambda: zipped({f"{i}.npy": b"" for i in range(20_000)}),
        "its list of members has .* bytes, expected at most",
    ),
    "no zip": (lambda: b"x" * 99, "a.npz is damaged: not a zip file, or cut"),
    "cut": (lambda: zipped({"W_enc.npy": npy((1,), data=b"1234")})[40:], "a.npz is damaged"),
}


@pytest.mark.parametrize("case", NPZ)
def test_an_npz_that_claims_more_than_it_has_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write, message = NPZ[case]
    (tmp_path / "a.npz").write_bytes(write())
    refused(tmp_path / "a.npz", message)
    assert not (tmp_path / "ran").exists()


YAML = {
    "!!python/object/apply:os.mkdir [ran]": "config.yaml is damaged: not YAML",
    "[1, 2]": "config.yaml holds list, expected keys and values",
    "{": "config.yaml is damaged: not YAML",
    "model_kind: cross_layer_transcoder": "model_kind is 'cross_layer_transcoder', only 'transcoder_set' of layer_N",
    "feature_input_hook: ../../x": "called .*: a name has no slashes",
    "a: &a [1, 1]\n" + "\n".join(f"a{i}: &a{i} [*a{i - 1 or ''}, *a{i - 1 or ''}]" for i in range(1, 60)): "",
    "x" * (1 << 17): "config.yaml has 131072 bytes, expected at most 65536",
}


@pytest.mark.parametrize("text", YAML, ids=["code", "list", "cut", "clt", "path", "aliases", "long"])
def test_a_config_of_circuit_tracer_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    folder = folder_of(tmp_path / "theirs", "circuit-tracer")
    monkeypatch.chdir(tmp_path)
    (folder / "config.yaml").write_text(text)
    if YAML[text]:
        refused(folder, YAML[text])
    else:  # 2^60 numbers, were they written out
        assert FeatureDictionary.load(folder).d_sae == D_SAE
    assert not (tmp_path / "ran").exists()


def test_a_negative_threshold_of_circuit_tracer_is_refused(tmp_path: Path) -> None:
    """Its JumpReLU lets through what is negative and above."""
    make(Kind("jumprelu", True)).save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "circuit-tracer", Stated())
    file = tmp_path / "theirs" / "layer_0.safetensors"
    weights = load_file(file)
    weights["activation_function.threshold"][3] = -1
    save_file(weights, file)
    refused(tmp_path / "theirs", "1 thresholds are less than 0")


def test_shapes_that_do_not_fit_are_named(tmp_path: Path) -> None:
    w = tensors()
    for name, x in {"b_dec": torch.zeros(D + 1), "b_enc": torch.zeros(1, 1), "W_dec": torch.zeros(D_SAE, D, 1)}.items():
        save_file({**w, name: x}, tmp_path / "a.safetensors")
        refused(tmp_path, "a.safetensors: .* expected")
