"""One feature in the terminal."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.config import UserError
from pipeline.report.one import one_feature
from tests.conftest import unmix
from tests.pipeline.report import made

NAME = "topk-d16-k4-s0"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made.write_run(tmp_path, [made.row(NAME, 16), made.row("other", 16)], [])
    made.write_dictionary(tmp_path / "features" / made.SITE / NAME, 16, ["other"], 60)
    return tmp_path


def test_it_has_the_row_and_the_contexts_of_that_feature_alone(run: Path) -> None:
    folder = run / "features" / made.SITE / NAME
    own = pq.read_table(folder / "features.parquet").to_pylist()
    others = pq.read_table(run / "features" / "elsewhere" / made.SITE / f"{NAME}.parquet").to_pylist()
    table = [{**row, **nearest} for row, nearest in zip(own, others, strict=True)]
    contexts = pq.read_table(folder / "contexts.parquet").to_pylist()
    for index in (0, 7, 15):
        found = one_feature(run, NAME, index)
        assert repr(found.row) == repr(table[index])  # nan is not nan
        own = sorted(abs(c["value"]) for c in contexts if c["feature"] == index)
        assert sorted(abs(e.value) for e in found.examples) == pytest.approx(own, rel=1e-3)
        assert found.page.endswith(f"{NAME}/index.html#feature={index}")


def test_the_command_shows_it_and_its_strongest_token(run: Path) -> None:
    index = next(i for i in range(16) if one_feature(run, NAME, i).examples)
    shown = unmix("feature", str(run), f"{made.SITE}/{NAME}", str(index), cwd=run).stdout
    assert f"feature {index}" in shown
    assert re.search("«.*»", shown)
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", shown)


@pytest.mark.parametrize(
    ("dictionary", "index", "message"),
    [
        ("none", 0, "no dictionary is called none"),
        (NAME, 16, "has features 0 to 15"),
        ("other", 0, "run `unmix report`"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(run: Path, dictionary: str, index: int, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        one_feature(run, dictionary, index)
    failed = unmix("feature", str(run), dictionary, str(index), cwd=run, check=False)
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
