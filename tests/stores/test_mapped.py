"""Weights that stay in their file: the same dictionary, and no number is used before it was checked."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.dictionary import FeatureDictionary, SparseCode
from tests.stores.formats.making import D_SAE, KINDS, Kind, make, rows

WEIGHTS = "sae_weights.safetensors"


def in_file(dictionary: FeatureDictionary, name: str) -> bool:
    """Whether a weight's first number lies in a mapping of the file, by the kernel's list."""
    at = dictionary._buffers[name].data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(part, 16) for part in line.split()[0].split("-"))
        if first <= at < last:
            return line.endswith(WEIGHTS)
    return False


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_mapped_dictionary_is_the_one_that_is_read(tmp_path: Path, kind: Kind) -> None:
    make(kind).save(tmp_path)
    read, mapped = (FeatureDictionary.load(tmp_path, mmap=mmap) for mmap in (False, True))
    assert [in_file(d, "W_dec") for d in (read, mapped, FeatureDictionary.load(tmp_path))] == [False, True, False]
    assert mapped.spec == read.spec
    torch.testing.assert_close(mapped.encode(rows()), read.encode(rows()), rtol=0, atol=1e-6)
    for name, weight in read.weights.items():
        assert torch.equal(getattr(mapped, name), weight)


def test_large_files_are_mapped_and_others_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(Kind("topk")).save(tmp_path)
    monkeypatch.setattr("stores.dictionary.LEAST_BYTES", (tmp_path / WEIGHTS).stat().st_size)
    assert in_file(FeatureDictionary.load(tmp_path), "W_enc")
    monkeypatch.setattr("stores.dictionary.LEAST_BYTES", (tmp_path / WEIGHTS).stat().st_size + 1)
    assert not in_file(FeatureDictionary.load(tmp_path), "W_enc")


def altered(folder: Path, name: str, value: float) -> None:
    """One number of a weight, with the digests left as they are."""
    weights = load_file(folder / WEIGHTS)
    weights[name].view(-1)[3] = value
    save_file(weights, folder / WEIGHTS)


USES: dict[str, Callable[[FeatureDictionary], object]] = {
    "decode": lambda d: d.decode(torch.zeros(D_SAE)),
    "directions": lambda d: d.directions,
    "W_dec": lambda d: d.W_dec,
    "weights": lambda d: d.weights,
    "state_dict": lambda d: d.state_dict(),
    "load_state_dict": lambda d: d.load_state_dict(make(Kind("topk"), seed=1).state_dict()),
    "to": lambda d: d.to(torch.float64),
    "check": lambda d: d.check(),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_an_altered_weight_is_refused_at_each_use_of_it(tmp_path: Path, use: str, value: float) -> None:
    make(Kind("topk")).save(tmp_path)
    altered(tmp_path, "W_dec", value)
    mapped = FeatureDictionary.load(tmp_path, mmap=True)
    mapped.encode(rows())  # W_dec has no part in it
    for _ in range(2):
        with pytest.raises(ValueError, match=f"{WEIGHTS} was altered: the digest of W_dec is not the one in prov"):
            USES[use](mapped)
    with pytest.raises(ValueError, match=f"{WEIGHTS} was altered"):
        FeatureDictionary.load(tmp_path, mmap=False)


def test_numbers_that_are_not_finite_are_refused_where_no_digest_is_known(tmp_path: Path) -> None:
    make(Kind("topk")).save(tmp_path)
    altered(tmp_path, "W_enc", float("inf"))
    (tmp_path / "provenance.json").unlink()
    mapped = FeatureDictionary.load(tmp_path, mmap=True)
    with pytest.raises(ValueError, match=f"{WEIGHTS}: 1 of 160 numbers in W_enc are not finite"):
        mapped.encode(rows())


def test_a_sparse_code_is_decoded_by_its_rows_alone(tmp_path: Path) -> None:
    dictionary = make(Kind("topk"))
    dictionary.save(tmp_path)
    code = dictionary.encode_sparse(rows().view(5, 10, -1))
    expected = dictionary.decode(dictionary.encode(rows())).view(5, 10, -1)
    torch.testing.assert_close(dictionary.decode_sparse(code), expected, rtol=0, atol=1e-6)
    altered(tmp_path, "W_dec", float("nan"))  # of row 0
    mapped = FeatureDictionary.load(tmp_path, mmap=True)
    one = SparseCode(torch.tensor([2.0, 1.0]), torch.tensor([7, 1]))
    expected = 2 * dictionary.W_dec[7] + dictionary.W_dec[1] + dictionary.b_dec
    torch.testing.assert_close(mapped.decode_sparse(one), expected)
    with pytest.raises(ValueError, match=f"{WEIGHTS}: 1 of 8 numbers in what the rows of W_dec give are not finite"):
        mapped.decode_sparse(SparseCode(torch.ones(1), torch.tensor([0])))


def test_a_file_that_takes_the_name_changes_nothing(tmp_path: Path) -> None:
    dictionary = make(Kind("jumprelu"))
    dictionary.save(tmp_path)
    mapped = FeatureDictionary.load(tmp_path, mmap=True)
    make(Kind("jumprelu"), seed=1).save(tmp_path)
    torch.testing.assert_close(mapped(rows()), dictionary(rows()), rtol=0, atol=1e-6)
    mapped.save(tmp_path)  # also onto the file that it lies in
    assert torch.equal(FeatureDictionary.load(tmp_path).W_dec, dictionary.W_dec)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("around", [False, True])
def test_other_weights_may_be_loaded_over_it(tmp_path: Path, assign: bool, around: bool) -> None:
    dictionary, other = make(Kind("topk")), make(Kind("topk"), seed=1)
    dictionary.save(tmp_path)
    mapped = FeatureDictionary.load(tmp_path, mmap=True)
    one, two = (torch.nn.Sequential(d) if around else d for d in (mapped, other))
    one.load_state_dict(two.state_dict(), assign=assign)
    torch.testing.assert_close(mapped(rows()), other(rows()), rtol=0, atol=1e-6)
    assert torch.equal(FeatureDictionary.load(tmp_path, mmap=False).W_dec, dictionary.W_dec)


@pytest.mark.parametrize("why", ["a digest of the file alone", "half precision", "an option to fold"])
def test_what_has_to_be_read_is_read_and_checked_at_once(tmp_path: Path, why: str) -> None:
    dictionary = make(Kind("topk"))
    dictionary.save(tmp_path)
    note, config = (json.loads((tmp_path / name).read_text()) for name in ("provenance.json", "cfg.json"))
    if why == "a digest of the file alone":  # as it was before each weight had one
        del note["tensor_digests"]
        (tmp_path / "provenance.json").write_text(json.dumps(note))
    else:
        (tmp_path / "provenance.json").unlink()
    if why == "half precision":
        save_file({name: x.half() for name, x in dictionary.weights.items()}, tmp_path / WEIGHTS)
    if why == "an option to fold":
        (tmp_path / "cfg.json").write_text(json.dumps({**config, "apply_b_dec_to_input": False}))
    assert not in_file(FeatureDictionary.load(tmp_path, mmap=True), "W_dec")
    altered(tmp_path, "W_dec", float("nan"))
    with pytest.raises(ValueError, match="was altered" if "digest" in why else "in W_dec are not finite"):
        FeatureDictionary.load(tmp_path, mmap=True)
