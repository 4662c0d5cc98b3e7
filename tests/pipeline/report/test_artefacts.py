"""What is missing or damaged is told in a line."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import UserError
from pipeline.report.artefacts import read_run
from pipeline.report.attribution import feature_jsons
from pipeline.report.one import one_feature
from pipeline.report.pages import write_report
from tests.pipeline.report import made

NAME = "topk-d8-k2-s0"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made.write_run(tmp_path, [made.row(NAME, 8)], [])
    made.write_dictionary(tmp_path / "features" / made.SITE / NAME, 8, ["other"], 60)
    return tmp_path


def test_a_run_that_is_not_scored_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"scores\.json is missing: run `unmix score`"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["features.parquet", "contexts.parquet", "probes.parquet"])
def test_a_damaged_table_is_told(run: Path, name: str) -> None:
    file = run / "features" / made.SITE / NAME / name
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"{name} has no parquet file: run `rm "):
        write_report(run)
    pq.write_table(pa.table({"label": ["a"], "feature": [0], "density": [0.5]}), file)
    with pytest.raises(UserError, match=f"{name} has no column"):
        write_report(run)


def test_features_of_another_dictionary_are_told(run: Path) -> None:
    table = pq.read_table(run / "features" / made.SITE / NAME / "features.parquet")
    pq.write_table(table.slice(1), run / "features" / made.SITE / NAME / "features.parquet")
    with pytest.raises(UserError, match="7 rows that are not features 0 to 7"):
        write_report(run)


def test_contexts_are_sorted_by_feature_and_group_the_largest_first(run: Path) -> None:
    file = run / "features" / made.SITE / NAME / "contexts.parquet"
    table = pq.read_table(file)
    pq.write_table(table.take(list(range(len(table)))[::-1]), file)
    assert read_run(run).dictionaries[0].contexts().to_pylist() == table.to_pylist()


def test_columns_that_are_not_known_are_left_out(run: Path) -> None:
    folder = run / "features" / made.SITE / NAME
    table = pq.read_table(folder / "features.parquet").select(["feature", "density", "max"])
    pq.write_table(table, folder / "features.parquet")
    (folder / "probes.parquet").unlink()
    (run / "features" / "tokens.json").unlink()
    assert write_report(run).exists()


def test_the_same_artefacts_make_the_same_bytes_and_fewer_leave_no_part(tmp_path: Path) -> None:
    def files() -> dict[str, bytes]:
        return {str(f): f.read_bytes() for f in (tmp_path / "report").rglob("*") if f.is_file()}

    folder = tmp_path / "features" / made.SITE / NAME
    for d_sae in (300, 8):
        made.write_run(tmp_path, [made.row(NAME, d_sae)], [])
        made.write_dictionary(folder, d_sae, ["other"], 60)
        write_report(tmp_path)
    pages = tmp_path / "report" / made.SITE / NAME
    assert [file.name for file in (pages / "data").glob("part-*.js")] == ["part-0.js"]
    before = files()
    write_report(tmp_path)
    assert files() == before


def test_a_label_or_rule_that_tells_nothing_is_shown_nowhere(run: Path) -> None:
    file = run / "features" / made.SITE / NAME / "features.parquet"
    table, f1 = pq.read_table(file), [0.0, 0.0999, 0.1, 0.5, None, 1.0, 1.0, 1.0]
    for name in ("label", "rule"):
        table = table.set_column(table.column_names.index(name), name, pa.array([f"{name} {i}" for i in range(8)]))
        table = table.set_column(table.column_names.index(f"{name}_f1"), f"{name}_f1", pa.array(f1, pa.float32()))
    pq.write_table(table, file)
    dictionary = read_run(run).dictionaries[0]
    found = dictionary.features()
    for name in ("label", "rule"):
        assert [i for i, text in enumerate(found[name].to_pylist()) if text is None] == [0, 1]
        assert found[f"{name}_f1"].equals(table[f"{name}_f1"])
    write_report(run)
    page = (run / "report" / made.SITE / NAME / "data" / "features.js").read_text()
    assert ["label 1" in page, "rule 1" in page, "label 2" in page, "rule 2" in page] == [False, False, True, True]
    assert [one_feature(run, NAME, i).row["label"] for i in (1, 2)] == [None, "label 2"]
    exported = list(feature_jsons(dictionary.row, found, dictionary.contexts(), {}))
    assert [(exported[i]["label"], exported[i]["rule"]) for i in (1, 2)] == [(None, None), ("label 2", "rule 2")]


def test_a_part_that_another_report_has_removed_is_no_error(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(run)
    left = run / "report" / made.SITE / NAME / "data" / "part-9.js"
    left.touch()
    really = Path.unlink

    def twice(file: Path, missing_ok: bool = False) -> None:
        really(file)
        really(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", twice)
    write_report(run)
    assert not left.exists()
