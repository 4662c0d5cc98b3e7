from pipeline.models.hook_points import place
from pipeline.score.places import labels, written_too_early
from stores.site import Site


def test_places_are_in_the_order_of_the_pass() -> None:
    order = ["hook_embed", "blocks.0.hook_resid_pre", "blocks.0.attn.hook_z.3", "blocks.0.hook_attn_out"]
    order += [
        "blocks.0.hook_resid_mid",
        "blocks.0.ln2.hook_normalized",
        "blocks.0.hook_mlp_out",
        "blocks.0.hook_resid_post",
    ]
    order += ["blocks.1.hook_resid_pre", "blocks.2.hook_resid_pre", "blocks.10.hook_resid_pre"]
    assert sorted(order, key=place) == order
    assert len({place(hook_point) for hook_point in order}) == len(order)


def test_a_write_before_a_read_is_found() -> None:
    mid, out, past = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", "blocks.1.hook_resid_post"
    assert written_too_early(Site((mid,), (out,))) is None
    assert written_too_early(Site.at(mid)) is None
    assert written_too_early(Site((past, mid), (out, past))) == (out, past)


def test_labels_are_short() -> None:
    assert labels(["blocks.0.hook_resid_post", "blocks.10.hook_resid_post"]) == ["layer 0", "layer 10"]
    assert labels(["hook_embed", "blocks.0.hook_mlp_out"]) == ["hook_embed", "0.hook_mlp_out"]
