"""Which sites a method's table names."""

import pytest

from pipeline.config import UserError
from pipeline.train.config import TrainConfig
from pipeline.train.sites import sites
from pipeline.train.tasks import tasks
from stores.site import Site

LAYERS = (0, 1, 3)
STORE = tuple(f"blocks.{layer}.{site}" for layer in LAYERS for site in ("hook_resid_mid", "hook_mlp_out"))


def named(layer: int, site: str) -> str:
    return f"blocks.{layer}.{site}"


def found(**table) -> list[Site]:
    return sites(table, STORE, "train.topk")


def test_without_a_word_of_it_there_is_an_autoencoder_at_each_hook_point() -> None:
    assert found() == [Site.at(hook_point) for hook_point in STORE]


def test_the_short_form_names_autoencoders() -> None:
    assert found(hook_points=STORE[1]) == [Site.at(STORE[1])]
    assert found(hook_points=[STORE[1], STORE[0]]) == [Site.at(STORE[1]), Site.at(STORE[0])]
    assert found(hook_points="blocks.*.hook_mlp_out") == [Site.at(named(n, "hook_mlp_out")) for n in LAYERS]


def test_a_text_with_a_star_is_a_site_of_each_layer_and_a_list_is_one_site() -> None:
    transcoders = found(reads="blocks.*.hook_resid_mid", writes="blocks.*.hook_mlp_out")
    assert transcoders == [Site((named(n, "hook_resid_mid"),), (named(n, "hook_mlp_out"),)) for n in LAYERS]
    all_layers = tuple(named(n, "hook_resid_mid") for n in LAYERS)
    assert found(reads=["blocks.*.hook_resid_mid"]) == [Site(all_layers, all_layers)]
    written = tuple(named(n, "hook_mlp_out") for n in LAYERS)
    assert found(reads=STORE[0], writes=["blocks.*.hook_mlp_out"]) == [Site((STORE[0],), written)]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"hook_points": STORE[0], "writes": STORE[1]}, "leave out reads and writes"),
        ({"writes": STORE[1]}, "train.topk.reads is missing"),
        ({"reads": STORE[0], "writes": "blocks.*.hook_mlp_out"}, "put it into a list"),
        ({"reads": "blocks.*.hook_resid_pre"}, "'blocks.*.hook_resid_pre' is no hook point in the store, did you mean"),
        ({"reads": [STORE[0], STORE[0]]}, "one of them comes twice"),
        ({"reads": "blocks.0.attn.hook_z.*"}, "* stands for a layer"),
        ({"reads": [STORE[0], STORE[1]], "writes": [STORE[1], STORE[0]]}, "in another order"),
        ({"reads": 3}, "expected the name of a hook point"),
        ({"hook_points": []}, "expected the name of a hook point"),
    ],
)
def test_what_names_no_site_is_refused(table: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        found(**table)
    assert message in str(error.value)


def wanted(**methods) -> list:
    return tasks(TrainConfig(n_tokens=1, **methods), lambda hook_point: 32, STORE)


def test_tasks_are_named_by_what_differs() -> None:
    table = {"d_sae": 16, "k": 2, "reads": STORE[0], "writes": STORE[1], "skip": [False, True]}
    assert [task.name for task in wanted(topk=table)] == [
        "topk-d16-k2-s0",
        "topk-d16-k2-s0-skip",
    ]
    assert [task.name for task in wanted(topk={**table, "skip": True})] == ["topk-d16-k2-s0-skip"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"topk": {"d_sae": 16, "k": 2, "reads": STORE[0], "writes": "blocks.2.hook_mlp_out"}}, "is not in the store"),
        ({"topk": {"d_sae": 16, "k": 2, "hook_points": STORE[0], "skip": True}}, "skip = true"),
        ({"tied": {"d_sae": 16, "reads": STORE[0], "writes": STORE[1]}}, "its decoder is its encoder"),
        ({"tied": {"d_sae": 16, "reads": list(STORE[:2])}}, "its decoder is its encoder"),
        (
            {"topk": {"d_sae": 16, "k": 2, "skip": True, "reads": STORE[0], "writes": list(STORE[:2])}},
            "is read and written",
        ),
        ({"pca": {"reads": STORE[0], "writes": STORE[1]}}, "it writes what it reads"),
        ({"jacobian_rotation": {"hook_points": STORE[0]}}, 'set writes = "blocks.0.hook_mlp_out"'),
        ({"topk": {"d_sae": 16, "k": 2, "init": "writer", "reads": STORE[0], "writes": STORE[1]}}, "one hook point"),
    ],
)
def test_what_a_method_cannot_do_at_a_site_is_refused(methods: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        wanted(**methods)
    assert message in str(error.value)


def test_bases_need_not_have_what_they_write_in_the_store() -> None:
    table = {"reads": "blocks.0.hook_resid_mid", "writes": "blocks.0.hook_mlp_out"}
    config = TrainConfig(n_tokens=1, jacobian_rotation=table)
    (task,) = tasks(config, lambda hook_point: 32, ("blocks.0.hook_resid_mid",))
    assert task.site == Site(("blocks.0.hook_resid_mid",), ("blocks.0.hook_mlp_out",))
