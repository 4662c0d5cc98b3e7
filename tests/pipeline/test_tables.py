"""What is printed is whole, however long the names are."""

from pathlib import Path

import pytest

from pipeline.score.spread import summary
from pipeline.status import Progress
from pipeline.status_table import show
from pipeline.tables import show_scores
from stores.lease import Holder
from stores.manifest import commit_json

SITE = "blocks.0-11.ln2.hook_normalized+hook_embed--blocks.0-11.hook_mlp_out"


def test_a_long_sites_name_takes_nothing_from_the_other_columns(capsys: pytest.CaptureFixture[str]) -> None:
    place, worker = f"{SITE}/topk-d24576-k32-s0-skip_False", Holder("node7", 4312, "881_3")
    show([Progress("train", place, "running", 1000, 3000, "steps", 50.0, Path("x"), (worker,))])
    (line,) = (line for line in capsys.readouterr().out.split("\n") if place in line)
    cells = ["train", place, "running", "1,000 / 3,000 steps", "50 steps/s", "40 s", "node7 4312, job 881_3"]
    assert [cell.strip() for cell in line.split("  ") if cell.strip()] == cells


def printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], values: dict[str, list[float]]) -> list[str]:
    """The lines that tell of dictionaries with these values of FVU, one for each seed."""
    rows, settings = [], []
    for name, fvu in values.items():
        for seed, value in enumerate(fvu):
            common = {"site": SITE, "reads": [SITE], "writes": [SITE], "d_sae": 8, "n_rows": 10, "warnings": []}
            scores = {"l0": 32.0, "fvu": value, "dead": 3 * seed, "ultra_low_density": None, "sparse": True}
            rows.append({**common, "name": f"{name}-s{seed}", "method": "topk", **scores})
            settings.append({"seed": seed, "of": name.split("-")[0], "frozen": "decoder" if "frozen" in name else None})
    path = tmp_path / "scores.json"
    commit_json(path, {"dictionaries": rows, "sets": [], "pairs": [], "missing": [], **summary(rows, settings, [])})
    show_scores(path)
    return [" ".join(line.split()) for line in capsys.readouterr().out.split("\n")]


def test_a_line_of_the_scores_tells_the_spread_and_whether_the_next_is_apart(tmp_path: Path, capsys) -> None:
    values = {"a": [0.115, 0.119, 0.117], "b": [0.116, 0.120, 0.118], "b-frozen": [0.2, 0.2001, 0.2002], "c": [0.5]}
    lines = printed(tmp_path, capsys, values)
    assert "a 3 8 32.0 ± .0 ~0.117 ± .002 3.0 ± 3.0" in lines
    assert "b 3 8 32.0 ± .0 0.118 ± .002 3.0 ± 3.0" in lines
    assert "b-frozen 3 8 32.0 ± .0 ~0.200 ± .0001 3.0 ± 3.0" in lines  # the next is one seed
    assert "c-s0 1 8 32.0 0.500 0" in lines
    assert any(line.startswith("~: not apart") for line in lines)
    first = lines.index("dictionary FVU") + 1
    assert lines[first : first + 2] == ["a +0.083 topk frozen decoder", "b +0.082 topk frozen decoder"]


def test_dictionaries_without_controls_have_no_table_of_margins(tmp_path: Path, capsys) -> None:
    lines = printed(tmp_path, capsys, {"a": [0.1, 0.1001], "b": [0.9, 0.9002]})
    assert not any("control" in line or "~" in line for line in lines)
