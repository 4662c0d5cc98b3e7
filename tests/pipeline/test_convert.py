"""unmix convert: what a user sees of it."""

from pathlib import Path

import numpy as np

from stores.dictionary import FeatureDictionary
from tests.conftest import unmix
from tests.stores.formats.making import Kind, make
from tests.stores.formats.test_reading import tensors


def test_a_command_converts_and_never_overwrites(tmp_path: Path) -> None:
    make(Kind("jumprelu")).save(tmp_path / "ours")
    done = unmix("convert", "ours", "theirs", "--to", "dictionary_learning", cwd=tmp_path)
    assert "1 dictionary for dictionary_learning, theirs" in done.stdout
    again = unmix("convert", "ours", "theirs", "--to", "saelens", cwd=tmp_path, check=False)
    assert again.returncode == 2
    assert again.stderr == "unmix: theirs is there already, and is not overwritten: name another folder\n"
    refused = unmix("convert", "ours", "more", "--to", "sparsify", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "sparsify has no jumprelu" in refused.stderr
    assert "saelens and dictionary_learning can hold it" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]


def test_what_is_stated_reaches_the_files(tmp_path: Path) -> None:

    np.savez(tmp_path / "sae.npz", **{name: x.numpy() for name, x in tensors().items()})
    refused = unmix("convert", "sae.npz", "out", "--to", "saelens", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    assert "state apply_b_dec_to_input" in refused.stderr
    assert not (tmp_path / "out").exists()
    stated = ["--hook-point", "blocks.1.hook_mlp_out", "--no-apply-b-dec-to-input", "--k", "3"]
    unmix("convert", "sae.npz", "out", "--to", "saelens", *stated, cwd=tmp_path)
    found = FeatureDictionary.load(tmp_path / "out")
    assert (found.hook_point, found.spec.k) == ("blocks.1.hook_mlp_out", 3)
