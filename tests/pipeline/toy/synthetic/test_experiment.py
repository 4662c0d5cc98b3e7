"""Known features in superposition: what the page says is what the score stage says."""

from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.score.similarity import mmcs
from pipeline.toy.synthetic.data import HOOK_POINT, Data, DataConfig
from pipeline.toy.synthetic.experiment import Settings, grid, inputs
from pipeline.toy.synthetic.scored import Experiment, experiment
from pipeline.toy.synthetic.table import table
from stores.manifest import read_json
from tests.conftest import unmix

METHODS = {"topk": [{"d_sae": 64, "k": 2, "lr": 4e-3}], "pca": [{"n_rows": 16_384}]}


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Experiment]:
    data = Data(DataConfig(d=16, G=32, k=2, n_rows=20_480))
    return data, experiment(data, tmp_path_factory.mktemp("synthetic"), METHODS, 600)


def test_the_truth_is_found(learned: tuple[Data, Experiment]) -> None:
    _, found = learned
    there, _ = found.mmcs(found.names()[0])
    assert there > 0.95
    assert found.mmcs("pca")[0] < 0.75
    assert found.floor("topk-d64-k2-s0") < 0.75


def test_the_pages_numbers_are_the_score_stages(learned: tuple[Data, Experiment]) -> None:
    data, found = learned
    summary = found.summary("topk-d64-k2-s0")
    scores = read_json(found.folder / "score" / "scores.json")
    pair = next(p for p in scores["pairs"] if (p["a"], p["b"]) == ("truth", "topk-d64-k2-s0"))
    assert pair["relation"] == "truth"
    assert summary["mmcs"] == pair["mmcs"]
    assert summary["mmcs"] == pytest.approx(mmcs(data.F, found.live("topk-d64-k2-s0"), signed=False), abs=1e-4)
    row = next(r for r in scores["dictionaries"] if r["name"] == "topk-d64-k2-s0")
    assert summary["fvu"] == row["fvu"]
    assert not any(key.startswith("ce") or key == "kl" for key in row)  # no language model made the rows


@pytest.mark.slow
def test_the_command_line_trains_and_scores_on_the_same_store(learned: tuple[Data, Experiment], tmp_path: Path) -> None:
    _, found = learned
    recipe = tmp_path / "again.toml"
    recipe.write_text(f"""store = "{found.recipe.store}"
[extract]
hook_points = ["{HOOK_POINT}"]
n_rows = 1
[train]
batch_size = 256
n_tokens = {256 * 600}
[train.topk]
d_sae = 64
k = 2
lr = 4e-3
[score]
dictionaries = ["{found.folder / "truth"}"]
at_l0 = [2]
""")
    unmix("train", "again.toml", "--device", "cpu", cwd=tmp_path)
    assert "held-out rows" in unmix("score", "again.toml", "--device", "cpu", cwd=tmp_path).stdout
    again = Experiment(found.recipe, tmp_path / "runs" / "again")
    assert again.summary("topk-d64-k2-s0") == found.summary("topk-d64-k2-s0")


def test_a_second_run_does_nothing(learned: tuple[Data, Experiment]) -> None:
    data, found = learned
    files = {p: p.stat().st_mtime_ns for p in found.folder.rglob("*") if p.is_file()}
    experiment(data, found.folder, METHODS, 600)
    assert {p: p.stat().st_mtime_ns for p in found.folder.rglob("*") if p.is_file()} == files


def test_unknown_families_are_refused() -> None:
    with pytest.raises(UserError, match="unknown 'topq', did you mean topk"):
        inputs(Settings(families=("topq",)))


@pytest.mark.slow
def test_the_sources_own_size() -> None:
    """No figures of it are published for so few steps: most of the truth is found, far above PCA."""
    data = Data(DataConfig(d=256, G=512, correlation="batch"))
    found = table(data, (512,), (0.3, 1.0), 4000, 140_000)
    assert found["cells"][0][0]["mmcs"] > 0.85
    assert found["cells"][0][1]["mmcs"] < 0.5
    assert found["pca"]["mmcs"] < 0.3


@pytest.mark.slow
def test_known_answers_of_the_grid(tmp_path: Path) -> None:
    settings = Settings(grid_d_sae=(128, 256), grid_alpha=(0.3, 1.0, 3.0))
    found = grid(settings, tmp_path / "grid")
    cells = {(d, a): c["mmcs"] for d, row in zip(found["d_sae"], found["cells"]) for a, c in zip(found["alpha"], row)}
    assert cells[128, 0.3] >= 0.95
    assert cells[256, 1.0] >= 0.97
    assert cells[128, 3.0] <= 0.45
    best = [max(found["alpha"], key=lambda a: cells[d, a]) for d in found["d_sae"]]
    assert best == sorted(best)
    assert found["floors"]["pca"]["mmcs"] == pytest.approx(0.38, abs=0.03)


@pytest.mark.slow
def test_known_answers_of_the_sources_autoencoder() -> None:
    found = table(Data(DataConfig()), (128, 256), (0.3, 1.0, 3.0), 4000, 140_000)
    small, large = found["cells"]
    assert small[0]["mmcs"] >= 0.95
    assert large[1]["mmcs"] >= 0.97
    assert small[2]["mmcs"] <= 0.45
    assert large[1]["dead"] == pytest.approx(27, abs=15)
    assert found["pca"]["mmcs"] == pytest.approx(0.38, abs=0.03)
