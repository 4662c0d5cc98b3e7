"""Which autoencoders of different hook points are compared: those in one space, next to each other along the pass."""

import torch

from pipeline.score.between import between_sites
from pipeline.score.pairs import Entry
from pipeline.score.similarity import random_directions
from stores.site import Site


def at(hook_point: str, seed: int = 0, method: str = "topk", d: int = 8, reads: str = "") -> tuple[Site, Entry]:
    directions = random_directions(16, d, seed)
    return Site((reads or hook_point,), (hook_point,)), Entry.of(
        f"{method}-s{seed}", method, {"seed": seed}, 16, False, directions
    )


def pairs(*entries: tuple[Site, Entry]) -> list[tuple[str, str, str]]:
    return [(row["site"], row["relation"], row["a"]) for row in between_sites(entries)]


def test_the_next_place_in_the_stream_that_has_its_like() -> None:
    first, mid, out, last = (
        at(f"blocks.{h}") for h in ("0.hook_resid_pre", "1.hook_resid_mid", "1.hook_mlp_out", "2.hook_resid_post")
    )
    found = pairs(last, out, first, mid)
    assert {(site, why) for site, why, _ in found if why == "next site"} == {
        ("blocks.0.hook_resid_pre → blocks.1.hook_resid_mid", "next site"),
        ("blocks.1.hook_resid_mid → blocks.2.hook_resid_post", "next site"),
        ("blocks.1.hook_mlp_out → blocks.2.hook_resid_post", "next site"),
    }
    assert sum(why == "previous site" for _, why, _ in found) == 3
    assert len(pairs(at("hook_embed"), mid)) == 2


def test_what_lies_in_another_space_or_is_no_like_is_not_compared() -> None:
    resid = at("blocks.0.hook_resid_pre")
    for other in (
        at("blocks.1.mlp.hook_post"),  # the same width, other axes
        at("blocks.1.ln2.hook_normalized"),
        at("blocks.1.hook_mlp_out"),  # written to the stream, not the stream
        at("blocks.1.hook_resid_post", seed=1),
        at("blocks.1.hook_resid_post", method="relu_l1"),
        at("blocks.1.hook_resid_post", reads="blocks.1.hook_resid_mid"),  # a transcoder
    ):
        assert pairs(resid, other) == []
    assert pairs(at("blocks.0.mlp.hook_post"), at("blocks.1.mlp.hook_post")) == []
    assert pairs(at("blocks.0.hook_resid_pre", method="random"), at("blocks.1.hook_resid_pre", method="random")) == []


def test_the_scores_are_those_of_each_way() -> None:
    (site, a), (other, _) = at("blocks.0.hook_resid_pre"), at("blocks.0.hook_resid_post")
    b = Entry.of("topk-s0", "topk", {"seed": 0}, 16, False, torch.cat([a.load()[:4], -a.load()[:4]]))
    there, back = between_sites([(site, a), (other, b)])
    assert there["mmcs"] < back["mmcs"]
    assert back["fraction_above_0.9"] == 0.5
    dead = Entry.of("topk-s0", "topk", {"seed": 0}, 16, False, torch.empty(0, 8))
    assert between_sites([(site, a), (other, dead)]) == between_sites([(site, dead), (other, b)]) == []
