"""unmix compare: two dictionaries of any origin, dead features left out where their score says which."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.config import UserError
from pipeline.score.comparison import compare, seeds_of, side
from pipeline.score.similarity import random_directions
from pipeline.tables import show_comparison
from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.conftest import make_store, unmix
from tests.pipeline.score.made import dictionary, scored, subject

HOOK = "blocks.0.hook_resid_post"


def saved(folder: Path, W_dec: Tensor, hook_point: str = HOOK, architecture: str = "standard") -> str:
    n, d = W_dec.shape
    site = Site((hook_point,), (hook_point,)) if hook_point else Site((), ())
    FeatureDictionary(Spec(architecture, d, n, site), W_dec.T, torch.zeros(n), W_dec, torch.zeros(d)).save(folder)
    return str(folder)


def found(a: str, b: str, runs: Path = Path("runs")) -> dict:
    return compare(side(a, runs), side(b, runs))


def test_by_hand(tmp_path: Path) -> None:
    """Rows of the identity: A has 0 to 5 and a row of zeros, B has 5, 4, 3 and the opposite of 0."""
    axes = torch.eye(8)
    a = saved(tmp_path / "a", torch.cat([torch.zeros(1, 8), 3 * axes[:6]]))
    b = saved(tmp_path / "b", torch.stack([axes[5], axes[4], axes[3], -axes[0]]))
    result = found(a, b)
    assert result["a"]["d_sae"] == 7
    assert result["a"]["n_compared"] == 6
    assert "l0" not in result["a"]
    there, back = result["a_in_b"], result["b_in_a"]
    assert there["mmcs"] == there["fraction_above_0.9"] == 0.5
    assert there["without"] == [1, 2, 3]
    assert back["without"] == [3]
    assert back["mmcs"] == 0.75
    nearest = [(one["feature"], one["nearest"], one["cosine"]) for one in there["most_alike"]]
    assert nearest[:3] == [(4, 2, 1), (5, 1, 1), (6, 0, 1)]
    assert result["matched_cosine"] == 0.75
    signed = found(a, saved(tmp_path / "b", torch.stack([axes[5], axes[4], axes[3], -axes[0]]), architecture="linear"))
    assert signed["b_in_a"]["mmcs"] == 1
    assert signed["a_in_b"]["without"] == [2, 3]


def test_a_run_s_dictionary_is_named_shortly_and_its_dead_features_are_left_out(tmp_path: Path) -> None:
    store, run = make_store(tmp_path / "s.zarr", d={HOOK: 8}), tmp_path / "runs" / "r"
    dead = {"b_enc": torch.tensor([-1e6] * 3 + [1e3] * 13)}
    made = [subject(run, dictionary({HOOK: 8}, {HOOK: 8}, seed=i, **dead), f"d{i}", seed=i) for i in range(2)]
    pair, back = scored(run, store, made)["pairs"]
    result = found(f"r/{HOOK}/d0", str(made[1].folder), tmp_path / "runs")
    assert result["a"]["n_compared"] == result["b"]["n_compared"] == pair["n_alive_a"] == 13
    assert result["a"]["l0"] == 13
    assert min(one["feature"] for one in result["a_in_b"]["most_alike"]) >= 3
    assert result["a_in_b"]["mmcs"] == pytest.approx(pair["mmcs"], abs=1e-4)
    assert result["b_in_a"]["random_floor"] == pytest.approx(back["random_floor"], abs=1e-4)
    made[0].load().save(made[0].folder)  # the same files
    assert side(str(made[0].folder), tmp_path).row
    dictionary({HOOK: 8}, {HOOK: 8}, seed=9).save(made[0].folder)  # others, which that score is not of
    assert side(str(made[0].folder), tmp_path).row == {}


def test_scores_are_compared_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two groups of one site with Welch's interval; of one seed without."""
    path, rows, groups = tmp_path / "scores.json", [], []
    for name, fvu in (
        ("a", [0.10, 0.11, 0.12]),
        ("b", [0.20, 0.21, 0.22]),
        ("near", [0.11, 0.12, 0.13]),
        ("one", [0.3]),
    ):
        names = [f"{name}-s{i}" for i in range(len(fvu))]
        rows += [{"site": HOOK, "name": n, "fvu": value, "dead": 0} for n, value in zip(names, fvu, strict=True)]
        groups.append({"site": HOOK, "names": names})
    path.write_text(json.dumps({"dictionaries": rows, "groups": groups, "pairs": []}))
    folder = saved(tmp_path / "d", torch.eye(8))
    sides = {
        name: replace(side(folder, tmp_path), row={"site": HOOK}, seeds=seeds_of(path, HOOK, f"{name}-s0"))
        for name in ("a", "b", "near", "one")
    }
    b, near, one = (compare(sides["a"], sides[name])["over_seeds"]["fvu"] for name in ("b", "near", "one"))
    assert (b["difference"], b["apart"]) == (pytest.approx(0.1), True)
    half = 2.776 * 0.01 * (2 / 3) ** 0.5  # Student's t with four degrees of freedom
    assert (near["low"], near["high"]) == pytest.approx((0.01 - half, 0.01 + half), abs=1e-5)
    assert not near["apart"]
    dead = compare(sides["a"], sides["b"])["over_seeds"]["dead"]  # counts that agree
    assert (dead["difference"], dead["high"]) == (0, pytest.approx(2.776 * (2 / 3 / 12) ** 0.5, abs=1e-3))
    assert (one["low"], one["high"], one["apart"]) == (None, None, False)
    elsewhere = replace(sides["b"], row={"site": "another"})
    assert compare(sides["a"], elsewhere)["over_seeds"] == {}
    show_comparison(compare(sides["a"], sides["near"]))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.split("\n")]
    assert "FVU 0.110 ± .010, n 3 0.120 ± .010, n 3 ~+0.010 -0.013 to +0.033" in lines


@pytest.mark.parametrize(
    ("a", "b", "warned"),
    [
        ("blocks.0.hook_resid_pre", "blocks.3.hook_mlp_out", False),
        ("blocks.0.mlp.hook_post", "blocks.1.mlp.hook_post", True),
        ("blocks.0.hook_resid_pre", "blocks.0.ln1.hook_normalized", True),
        ("blocks.0.mlp.hook_post", "blocks.0.mlp.hook_post", False),
        ("", "blocks.0.mlp.hook_post", False),
    ],
)
def test_what_has_other_axes_is_told(tmp_path: Path, a: str, b: str, warned: bool) -> None:
    paths = [saved(tmp_path / str(i), random_directions(9, 8, i), h) for i, h in enumerate((a, b))]
    assert bool(found(*paths)["warning"]) == warned


def test_what_cannot_be_compared_is_told_in_one_line(tmp_path: Path) -> None:
    a, b = (saved(tmp_path / f"d{d}", random_directions(5, d)) for d in (4, 6))
    with pytest.raises(UserError, match=rf"d4 writes d_out = 4 \({HOOK}\), .*d6 writes d_out = 6"):
        found(a, b)
    with pytest.raises(
        UserError, match=r"no dictionary at .*nothing: give a folder with cfg.json in it, or RUN/SITE/NAME"
    ):
        side(str(tmp_path / "nothing"), tmp_path)
    with pytest.raises(UserError, match="all 3 features are dead"):
        side(saved(tmp_path / "dead", torch.zeros(3, 4)), tmp_path)
    (tmp_path / "d4" / "sae_weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(UserError, match="sae_weights.safetensors is damaged"):
        side(a, tmp_path)


def test_the_command_prints_a_table_or_json(tmp_path: Path) -> None:
    a, b = (saved(tmp_path / name, random_directions(30, 8, i)) for i, name in enumerate("ab"))
    shown = CliRunner().invoke(app, ["compare", a, b])
    result = found(a, b)
    assert shown.exit_code == 0
    assert f"{len(result['a_in_b']['without'])} features of A without one in B" in shown.output
    assert f"{result['b_in_a']['mmcs']:.3f}" in shown.output
    assert "The 10 most alike" in shown.output
    as_json = CliRunner().invoke(app, ["compare", a, b, "--json"])
    assert json.loads(as_json.output) == result
    wrong = CliRunner().invoke(app, ["compare", a, str(tmp_path / "c")])
    assert wrong.exit_code == 2


def test_a_folder_of_several_is_one_argument(tmp_path: Path) -> None:
    axes = torch.eye(8)
    for layer in range(2):
        for name in ("theirs", "ours"):
            hook_point = f"blocks.{layer}.hook_resid_post" if name == "ours" or not layer else ""
            saved(tmp_path / name / f"layer_{layer}", axes[4 * layer : 4 * layer + 3], hook_point)
    saved(tmp_path / "ours" / "narrow", torch.eye(4))

    def pairs(*arguments: str) -> list[tuple[str, str, float]]:
        found = json.loads(unmix("compare", *arguments, "--json", cwd=tmp_path).stdout)
        return [(one["a"]["path"], one["b"]["path"], one["a_in_b"]["mmcs"]) for one in found]

    # layer_0 by its site; layer_1, of which a site is not known, by its path
    assert pairs("ours", "theirs") == [(f"ours/layer_{i}", f"theirs/layer_{i}", 1.0) for i in range(2)]
    assert pairs("ours/layer_1", "theirs") == [("ours/layer_1", f"theirs/layer_{i}", float(i)) for i in range(2)]
    saved(tmp_path / "runs" / "r" / "train" / "site" / "one", axes[:3])
    assert [a for a, _, _ in pairs("r/site/one", "theirs")] == ["runs/r/train/site/one"] * 2
    lines = unmix("compare", "ours/layer_1", "theirs", cwd=tmp_path).stdout.splitlines()
    assert lines[0] == "2 pairs"
    assert [line.split()[1] for line in lines if line.startswith("ours")] == ["theirs/layer_1", "theirs/layer_0"]
    refused = unmix("compare", "ours/narrow", "theirs", cwd=tmp_path, check=False)
    assert refused.returncode == 2
    expected = "unmix: ours/narrow and theirs have no dictionaries that write the same width: ours/narrow writes 4 at "
    assert refused.stderr.startswith(expected)
    assert refused.stderr.count("\n") == 1
