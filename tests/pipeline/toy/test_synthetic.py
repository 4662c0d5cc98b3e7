"""Known features in superposition: the data, and that what the page says is what the score stage says."""

from pathlib import Path

import pytest
import torch

from pipeline.score.similarity import mmcs
from pipeline.toy.synthetic import (
    FAMILIES,
    HOOK_POINT,
    QUICK,
    Data,
    DataConfig,
    Experiment,
    Settings,
    experiment,
    grid,
    inits,
    source,
    write_store,
)
from pipeline.train.families.base import FamilyConfig
from pipeline.train.methods import METHODS
from stores.manifest import read_json
from tests.conftest import unmix

TINY = DataConfig(d=16, G=32, k=2, n_rows=20_480)


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Experiment]:
    data = Data(TINY)
    topk = {"d_sae": 64, "k": 2, "lr": 4e-3}
    return data, experiment(data, tmp_path_factory.mktemp("synthetic"), {"topk": [topk]}, 700, floors=True)


def test_uncorrelated_features_are_as_rare_as_in_the_source() -> None:
    """d = 256, G = 512: about 0.97 active of k = 5, as p is not rescaled."""
    codes = Data(DataConfig(d=256, G=512, correlation="none")).codes(0)
    assert float((codes > 0).sum(1).double().mean()) == pytest.approx(0.97, abs=0.03)
    assert float(codes[codes > 0].mean()) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("correlation", ["sample", "batch"])
def test_correlated_features_are_k_on_average_and_no_row_is_empty(correlation: str) -> None:
    data = Data(DataConfig(correlation=correlation))
    codes = torch.cat([data.codes(block) for block in range(4)])
    active = codes > 0
    assert float(active.sum(1).double().mean()) == pytest.approx(5, rel=0.1)
    assert bool(active.any(1).all())
    rate = active.double().mean(0)
    assert float(rate[:16].mean()) > 2 * float(rate[-16:].mean())  # 0.99^i
    # What is correlated: rows, or blocks of 256 rows of which each has its own probabilities.
    blocks = active.double().view(64, 256, -1).mean(1)
    spread = float((blocks.var(0) / (rate * (1 - rate) / 256)).mean())
    assert (spread > 4) is (correlation == "batch")


def test_features_are_unit_rows_and_a_trained_models_lie_apart() -> None:
    random, trained = (Data(DataConfig(d=8, G=16, k=1, features=how)).truth for how in ("random", "trained"))
    nearest = []
    for truth in (random, trained):
        assert torch.allclose(truth.norm(dim=1), torch.ones(len(truth)), atol=1e-5)
        nearest.append(float(((truth @ truth.T) - 2 * torch.eye(len(truth))).amax(1).mean()))
    assert nearest[1] < nearest[0]


def test_the_store_is_a_function_of_the_settings_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    data = Data(TINY)
    whole = write_store(data, tmp_path / "a.zarr")
    assert whole.description.model == "none"
    assert torch.equal(torch.from_numpy(whole.rows(HOOK_POINT, 4096, 4100)), data.rows(1)[:4])
    partial = tmp_path / "b.zarr"
    write_store(data, partial)
    for file in (*partial.glob("commits/00000.*"), partial / "manifest.json"):
        file.unlink()
    assert write_store(Data(TINY), partial).digest == whole.digest
    assert write_store(Data(DataConfig(**{**TINY.model_dump(), "seed": 1})), tmp_path / "c.zarr").digest != whole.digest


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
    assert summary["mmcs"] == pytest.approx(mmcs(data.truth, found.live("topk-d64-k2-s0"), signed=False), abs=1e-4)
    row = next(r for r in scores["dictionaries"] if r["name"] == "topk-d64-k2-s0")
    assert summary["fvu"] == row["fvu"]
    assert not any(key.startswith("ce") or key == "kl" for key in row)  # no language model made the rows


def test_the_command_line_trains_and_scores_on_the_same_store(learned: tuple[Data, Experiment], tmp_path: Path) -> None:
    _, found = learned
    recipe = tmp_path / "again.toml"
    recipe.write_text(f"""store = "{found.recipe.store}"
[extract]
hook_points = ["{HOOK_POINT}"]
n_rows = 1
[train]
batch_size = 256
n_tokens = {256 * 700}
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
    experiment(data, found.folder, {"topk": [{"d_sae": 64, "k": 2, "lr": 4e-3}]}, 700, floors=True)
    assert {p: p.stat().st_mtime_ns for p in found.folder.rglob("*") if p.is_file()} == files


def test_beginnings_are_compared_and_rows_of_the_data_are_ahead_when_training_is_short(tmp_path: Path) -> None:
    settings = Settings(**{**QUICK, "d": 16, "G": 32, "k": 1.5, "variant_steps": 60, "inits": ("random", "data")})
    found = inits(settings, tmp_path)
    assert found["steps"] == [20, 60]
    names = [p.name for p in (tmp_path / "steps-20" / "train" / HOOK_POINT).iterdir() if p.is_dir()]
    assert sorted(name.rsplit("-", 1)[1] for name in names) == ["init_data", "init_random"]
    assert found["rows"]["data"][0]["mmcs"] > found["rows"]["random"][0]["mmcs"] + 0.03


def test_settings_of_families_are_of_families() -> None:
    for name, settings in FAMILIES.items():
        assert issubclass(METHODS[name].config, FamilyConfig)
        METHODS[name].config(d_sae=256, **settings)


@pytest.mark.slow
def test_known_answers_of_the_grid(tmp_path: Path) -> None:
    settings = Settings(**{**QUICK, "n_rows": 280_000, "n_steps": 4000, "d_sae": (64, 128, 256), "alpha": (0.3, 1.0, 3.0),
                           "curve_alpha": (0.3, 0.3, 1.0), "source_d_sae": (128, 256)})  # fmt: skip
    found = grid(settings, tmp_path / "grid")
    cells = {(d, a): c["mmcs"] for d, row in zip(settings.d_sae, found["cells"]) for a, c in zip(settings.alpha, row)}
    assert cells[128, 0.3] >= 0.95
    assert cells[256, 1.0] >= 0.97
    assert cells[128, 3.0] <= 0.45
    best = [max(settings.alpha, key=lambda a: cells[d, a]) for d in settings.d_sae]
    assert best == sorted(best)
    assert found["floors"]["pca"]["mmcs"] == pytest.approx(0.38, abs=0.03)
    own = source(settings, tmp_path / "source")["cells"]
    assert own[0][0]["mmcs"] >= 0.95
    assert own[1][1]["mmcs"] >= 0.97
    assert own[0][2]["mmcs"] <= 0.45
    assert 0 < own[1][1]["dead"] < own[1][2]["dead"]
