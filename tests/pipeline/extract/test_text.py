import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.config import UserError
from pipeline.extract.config import PositionsConfig, TextConfig
from pipeline.extract.stdlib import relative_name, stdlib_files
from pipeline.extract.text import Documents, text_inputs
from pipeline.models.hub import dataset_commit
from tests.conftest import unmix


def files(*paths: Path) -> TextConfig:
    return TextConfig(source="files", path=tuple(map(str, paths)))


def test_text_files_folders_jsonl_and_parquet(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "sub").mkdir()
    (tmp_path / "b.txt").write_text("bee")
    (tmp_path / "sub" / "a.txt").write_text("ay")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps({"text": t, "n": 1}) + "\n" for t in ("one", "two")))
    datasets.Dataset.from_dict({"text": ["three"]}).to_parquet(str(tmp_path / "d.parquet"))
    assert list(Documents(files(tmp_path))) == ["bee", "one", "two", "three", "ay"]
    assert list(Documents(files(tmp_path / "sub", tmp_path / "b.txt"))) == ["ay", "bee"]
    column = TextConfig(source="files", path=(str(tmp_path / "c.jsonl"),), column="body")
    with pytest.raises(UserError, match=r"no column 'body' in .*c.jsonl row 1, it has text, n"):
        list(Documents(column))


def test_a_hub_dataset_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert list(Documents(TextConfig(source="hub", dataset=str(tmp_path)))) == ["a", "b"]
    with pytest.raises(UserError, match="cannot read nobody/nothing"):
        list(Documents(TextConfig(source="hub", dataset="nobody/nothing")))


def test_missing_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file or folder .*/nothing.txt"):
        list(Documents(files(tmp_path / "nothing.txt")))
    with pytest.raises(UserError, match="holds no text, expected files ending in .txt"):
        list(Documents(files(tmp_path)))


@pytest.mark.parametrize("name", ["a.TXT", "a.txt.gz", "a.JsonL", "a.jsonl.gz", "a.json", "a.Json.GZ", "list.json"])
def test_endings_in_any_case_gzip_and_lists(tmp_path: Path, name: str) -> None:
    rows = [{"text": "one\n"}, {"text": "zwei ü"}]
    text = "".join(json.dumps(row) + "\n\n" for row in rows)
    if ".txt" in name.lower():
        text = "one\r\nzwei ü"
    elif name == "list.json":
        text = json.dumps(rows, indent=1)
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    expected = ["one\nzwei ü"] if ".txt" in name.lower() else ["one\n", "zwei ü"]
    assert list(Documents(files(tmp_path))) == expected


def parquet(values: list) -> bytes:
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table({"text": values}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", np.random.default_rng(0).bytes(300_000), r"a.txt is binary or UTF-16 \(a zero byte at byte \d+\)"),
        ("a.txt", "text".encode("utf-16"), "a.txt is binary or UTF-16"),
        ("a.txt", b"caf\xe9", r"a.txt is not UTF-8 \(0xe9 at byte 3\): convert it"),
        ("a.txt.gz", b"no gzip", "cannot read .*a.txt.gz: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"text" * 99, mtime=0)[:-9], "cannot read .*a.txt.gz: "),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "a.jsonl row 2 has 5 in column 'text', a int, expected text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ["b"]}\n', r"a.jsonl row 2 has \['b'\] in column 'text', a list"),
        ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "no column 'text' in .*a.jsonl row 2, it has txt"),
        ("a.jsonl", b'{"text": "a"}\n["b"]\n', "a.jsonl row 2 is no object with columns"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "a.jsonl row 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xe9"}\n', r"a.jsonl is not UTF-8 \(0xe9 at byte 24\)"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl row 1 has half a surrogate pair at character 0"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl row 1 is not JSON"),
        ("a.json", b'[{"text": "a"}, {"text": 5}]', "a.json row 2 has 5 in column 'text'"),
        ("a.json", b'[{"text": "a"}', "a.json is not JSON"),
        ("a.parquet", parquet([1, 2]), "a.parquet row 1 has 1 in column 'text', a int"),
        ("a.parquet", parquet(["a"])[:-9], "cannot read .*a.parquet: "),
    ],
)  # fmt: skip
def test_what_is_no_text_is_refused_with_its_place(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        list(Documents(files(tmp_path)))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_null_rows_are_counted_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    values = ["a", None, "b", None]
    data = parquet(values) if name == "a.parquet" else "\n".join(json.dumps({"text": v}) for v in values).encode()
    (tmp_path / name).write_bytes(data)
    assert list(Documents(files(tmp_path))) == ["a", "b"]
    assert (
        capsys.readouterr().out
        == f"{tmp_path / name}: 2 of 4 rows have null in column 'text', the first is 2: left out\n"
    )


@pytest.mark.parametrize(("data", "message"), [(b"", "fill no sequence"), (b'{"text": 5}\n', "row 1 has 5 in column")])
def test_extract_refuses_with_one_line_and_writes_nothing(
    recipe: Path,
    data: bytes,
    message: str,
) -> None:
    (recipe / "a.jsonl").write_bytes(data)
    done = unmix("extract", "tiny.toml", "--set", "extract.text.path=a.jsonl", cwd=recipe, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (recipe / "runs").exists()


def test_workers_with_another_column_do_not_fill_one_store(recipe: Path) -> None:
    """Half of it would be one language and half the other."""
    rows = [{"en": f"one {i} house " * 9, "de": f"ein {i} Haus " * 9} for i in range(300)]
    (recipe / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = ["--set", "extract.store=shared.zarr", "--set", "extract.text.path=a.jsonl"]
    workers = [[*store, "--name", f"w{i}", "--worker", f"{i}/2"] for i in (0, 1)]
    unmix("extract", "tiny.toml", *workers[0], "--set", "extract.text.column=en", cwd=recipe)
    other = unmix("extract", "tiny.toml", *workers[1], "--set", "extract.text.column=de", cwd=recipe, check=False)
    assert other.returncode != 0
    assert "another description" in other.stderr
    unmix("extract", "tiny.toml", *store, "--name", "same", "--set", "extract.text.column=en", cwd=recipe)


def test_a_hub_datasets_revision_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub
    from huggingface_hub import constants

    said, read = {"main": "1" * 40}, []

    def dataset_info(_: object, name: str, revision: str | None = None) -> SimpleNamespace:
        if (revision or "main") not in said:
            raise OSError("no answer")
        return SimpleNamespace(sha=said[revision or "main"])

    def load_dataset(path: str, revision: str, **_: object) -> list[dict[str, str]]:
        read.append(revision)
        return [{"text": "a"}]

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    dataset_commit.cache_clear()
    config = TextConfig(source="hub", dataset="someone/text")
    assert text_inputs(config)["revision"] == "1" * 40
    said["main"] = "2" * 40  # pushed in between
    assert list(Documents(config)) == ["a"]
    assert read == ["1" * 40]
    # A commit is not asked for; a branch that the hub does not tell is what the cache says, or refused.
    assert text_inputs(config.model_copy(update={"revision": "3" * 40}))["revision"] == "3" * 40
    branch = config.model_copy(update={"revision": "branch"})
    with pytest.raises(UserError, match="cannot read someone/text: the hub does not say which commit branch is"):
        text_inputs(branch)
    refs = tmp_path / "datasets--someone--text" / "refs"
    refs.mkdir(parents=True)
    (refs / "branch").write_text("4" * 40)
    assert text_inputs(branch)["revision"] == "4" * 40


def test_the_digest_follows_order_kind_and_column(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.jsonl"):
        (tmp_path / name).write_text(json.dumps({"text": name, "other": name}))
    a, b, c = (tmp_path / name for name in ("a.txt", "b.txt", "c.jsonl"))
    assert text_inputs(files(a, b)) != text_inputs(files(b, a))
    (tmp_path / "d.txt").write_bytes(c.read_bytes())
    assert text_inputs(files(tmp_path / "d.txt"))["files_digest"] != text_inputs(files(c))["files_digest"]
    other = files(c).model_copy(update={"column": "other"})
    assert text_inputs(files(c)) != text_inputs(other)
    plain = files(a).model_copy(update={"column": "other"})
    assert text_inputs(files(a)) == text_inputs(plain)


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
