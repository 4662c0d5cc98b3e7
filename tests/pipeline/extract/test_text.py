import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import UserError
from pipeline.extract.stdlib import relative_name, stdlib_files
from pipeline.extract.text import documents, text_inputs
from pipeline.recipe import PositionsConfig, TextConfig


def files(*paths: Path) -> TextConfig:
    return TextConfig(source="files", path=tuple(map(str, paths)))


def test_text_files_folders_jsonl_and_parquet(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "sub" / "a.txt").write_text("ay")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in ("one", "two")))
    datasets.Dataset.from_dict({"text": ["three"]}).to_parquet(str(tmp_path / "d.parquet"))
    assert list(documents(files(tmp_path))) == ["bee", "one", "two", "three", "ay"]
    assert list(documents(files(tmp_path / "sub", tmp_path / "b.txt"))) == ["ay", "bee"]
    column = TextConfig(source="files", path=(str(tmp_path / "c.jsonl"),), column="body")
    with pytest.raises(UserError, match=r"no column 'body' in json, it has text, n"):
        list(documents(column))


def test_a_hub_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert list(documents(TextConfig(source="hub", dataset=str(tmp_path)))) == ["a", "b"]
    with pytest.raises(UserError, match="cannot read nobody/nothing"):
        list(documents(TextConfig(source="hub", dataset="nobody/nothing")))


def test_missing_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder .*/nothing.txt"):
        list(documents(files(tmp_path / "nothing.txt")))
    with pytest.raises(UserError, match="holds no text, expected files ending in .txt"):
        list(documents(files(tmp_path)))


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    before = text_inputs(files(tmp_path))
    assert text_inputs(files(tmp_path)) == before
    (tmp_path / "a.txt").write_text("two")
    assert text_inputs(files(tmp_path)) != before


def test_the_standard_library_is_split_by_file() -> None:
    train, heldout = stdlib_files("train"), stdlib_files("heldout")
    assert not set(train) & set(heldout)
    assert set(train) | set(heldout) == set(stdlib_files("all"))
    assert 0.02 < len(heldout) / len(train) < 0.1
    names = {relative_name(path) for path in train + heldout}
    assert "argparse.py" in names
    assert not any(name.startswith(("test/", "site-packages/")) for name in names)


def test_positions_all_but_bos_or_evenly_spaced() -> None:
    assert PositionsConfig().places(5) == (1, 2, 3, 4)
    assert PositionsConfig(skip_first=0).places(3) == (0, 1, 2)
    # 6 of 1,024 tokens, none of the first 100: linspace(100, 1023, 6)
    expected = np.linspace(100, 1023, 6).astype(int).tolist()
    assert list(PositionsConfig(skip_first=100, n_per_sequence=6).places(1024)) == expected
    with pytest.raises(ValueError, match="do not fit a context of 10"):
        PositionsConfig(skip_first=5, n_per_sequence=6).places(10)
