from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.recipe import RECIPES
from pipeline.stages import load_recipe
from pipeline.train.tasks import tasks

RECIPE = """
[extract]
hook_points = ["blocks.0.hook_resid_post", "blocks.0.mlp.hook_post"]
n_rows = 100
[train]
n_tokens = 100
batch_size = 10
[train.topk]
d_sae = [8, 16]
k = 2
seed = [0, 1]
[train.pca]
hook_points = "blocks.0.hook_resid_post"
"""
D = {"blocks.0.hook_resid_post": 4, "blocks.0.mlp.hook_post": 6}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECIPE)
    return tmp_path / "mine.toml"


def plans(path: Path, *sets: str) -> list:
    return tasks(load_recipe(str(path), list(sets)).train, D.__getitem__, tuple(D))


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.toml")))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert (RECIPES / f"{name}.toml").read_text().startswith("# ")


def test_lists_mean_one_dictionary_for_each_value(path: Path) -> None:
    names = [(p.site.name, p.name) for p in plans(path)]
    topk = ["topk-d8-k2-s0", "topk-d8-k2-s1", "topk-d16-k2-s0", "topk-d16-k2-s1"]
    first, second = D
    assert names == [*((first, n) for n in topk), (first, "pca"), *((second, n) for n in topk)]


def test_several_tables_of_one_method(path: Path) -> None:
    text = RECIPE.replace(
        "[train.topk]", '[[train.topk]]\nhook_points = "blocks.0.mlp.hook_post"\nd_sae = 32\n[[train.topk]]'
    )
    path.write_text(text)
    assert "topk-d32-k32-s0" in [p.name for p in plans(path) if p.site.name == "blocks.0.mlp.hook_post"]


def test_a_listed_setting_is_part_of_the_name(path: Path) -> None:
    names = {p.name for p in plans(path, "train.topk.lr=[0.1, 0.2]")}
    assert "topk-d8-k2-s0-lr_0.1" in names
    assert "topk-d8-k2-s0-lr_0.2" in names


def test_overrides(path: Path) -> None:
    recipe = load_recipe(str(path), ["train.topk.k=4", "extract.dtype=float32", "name=other"])
    assert recipe.name == "other"
    assert recipe.extraction.dtype == "float32"
    assert {p.config.k for p in plans(path, "train.topk.k=4") if p.method == "topk"} == {4}


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.topk.kk=3"], "unknown key train.topk.kk, did you mean k?"),
        (["train.topkk.k=3"], "unknown key train.topkk, did you mean topk?"),
        (["extract.contex=3"], "unknown key extract.contex, did you mean context?"),
        (["extract.text.sauce=3"], "unknown key extract.text.sauce, did you mean source?"),
        (["trian.x=3"], "unknown key trian, did you mean train?"),
        (["train.topk.d_sae=0"], "train.topk.d_sae: .*greater than or equal to 1, got 0"),
        (["train.topk.k=9"], "train.topk at blocks.0.hook_resid_post: k = 9 is more than d_sae = 8"),
        (["train.pca.d_sae=5"], "d_sae = 5 is more than the 4 components"),
        (["train.topk.hook_points=blocks.0.hook_resid_pots"], "did you mean blocks.0.hook_resid_post"),
        (["extract.context=1000000000"], "extract.context: .*less than or equal to 1048576, got 1000000000"),
        (["extract.n_rows=lots"], "extract.n_rows: .*valid integer.*, got 'lots'"),
        (["extract.text.source=files"], 'extract.text: source = "files" needs path'),
        (["train=5"], "train: .*valid dictionary"),
        (["train.topk.hook_points=[true]"], "train.topk.hook_points: expected the name of a hook point"),
        (["a\nb=3"], "unknown key 'a"),
        (["extract.context=" + "9" * 5000], "extract.context: .*integer"),
        (["nonsense"], "--set nonsense: expected KEY=VALUE"),
        (["extract.context.x=1"], "context is a value, not a table"),
    ],
)
def test_mistakes_are_told_in_one_line(path: Path, sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        plans(path, *(["extract.context=8", *sets] if "context.x" in sets[0] else sets))
    assert "\n" not in str(error.value)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no recipe 'demmo', did you mean demo?"):
        load_recipe("demmo")
    with pytest.raises(UserError, match="is a folder, expected a recipe"):
        load_recipe(str(tmp_path))
    with pytest.raises(UserError, match="no recipe file .*: No such file"):
        load_recipe(str(tmp_path / "x.toml"))
    for wrong in ("= 3", "x = " + "9" * 5000, "x = " + "[" * 5000):
        (tmp_path / "y.toml").write_text(wrong)
        with pytest.raises(UserError, match="y.toml is not TOML"):
            load_recipe(str(tmp_path / "y.toml"))


@pytest.mark.parametrize("hook_point", ["", "..", "/tmp/x", "../x"])
def test_a_hook_point_is_a_name_in_recipes_and_stores_alike(path: Path, hook_point: str) -> None:
    with pytest.raises(UserError, match="extract: a hook point (is called|has an empty name)"):
        load_recipe(str(path), [f"extract.hook_points=['{hook_point}']"])
    with pytest.raises(UserError, match="the store: a hook point (is called|has an empty name)"):
        tasks(load_recipe(str(path)).train, lambda _: 4, (hook_point,))


FIRST = next(iter(D))
TWINS = ["topk-d8-k2-frozen_decoder-s0", "topk-d8-k2-frozen_encoder-s0", "covariance-d8-k2-s0"]


def named(path: Path, *sets: str) -> list[str]:
    return [p.name for p in plans(path, *sets) if p.site.name == FIRST]


def test_controls_stand_beside_each_dictionary_of_a_family(path: Path) -> None:
    one = ("train.topk.d_sae=8", "train.topk.seed=0")
    assert named(path, *one, "train.controls=true") == ["topk-d8-k2-s0", "pca", *TWINS]
    assert named(path, *one, "train.topk.controls=true") == ["topk-d8-k2-s0", "pca", *TWINS]
    assert named(path, *one, "train.controls=true", "train.topk.controls=false") == ["topk-d8-k2-s0", "pca"]
    assert len(named(path, "train.controls=true")) == 4 * (1 + len(TWINS)) + 1


def test_dictionaries_of_one_size_and_sparsity_share_a_control(path: Path) -> None:
    path.write_text(RECIPE + "[train.relu_l1]\nd_sae = 8\nl0_target = 2\n[train.tied]\nd_sae = 8\n")
    names = named(path, "train.topk.d_sae=8", "train.topk.seed=0", "train.controls=true")
    assert names.count("covariance-d8-k2-s0") == 1
    assert [n for n in names if "frozen" in n and "relu" in n] == [
        "relu_l1-d8-l0_2.0-frozen_decoder-s0",
        "relu_l1-d8-l0_2.0-frozen_encoder-s0",
    ]
    assert [n for n in names if n.startswith("tied")] == ["tied-d8-s0"]


def test_a_control_that_a_table_asks_for_by_its_name_comes_once(path: Path) -> None:
    one = ("train.topk.d_sae=8", "train.topk.seed=0", "train.controls=true")
    path.write_text(RECIPE + "[train.covariance]\nd_sae = 8\nk = 2\n")
    assert sorted(named(path, *one)) == sorted(["topk-d8-k2-s0", "pca", *TWINS])
    assert named(path, *one, 'train.topk.frozen="decoder"') == [TWINS[0], "pca", TWINS[2]]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.topk.controls=1"], "train.topk.controls: expected true or false, got 1"),
        (["train.pca.controls=true"], "unknown key train.pca.controls"),
        (["train.controls=true", "train.topk.resample_every_tokens=9"], "resample_every_tokens = 9 replaces"),
    ],
)
def test_controls_that_cannot_be_are_refused(path: Path, sets: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plans(path, *sets)
