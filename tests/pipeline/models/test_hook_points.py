from pipeline.models.hook_points import Sizes, place

SIZES = Sizes(n_layers=2, n_positions=9, vocab_size=9, d_model=8, d_mlp=20, n_heads=3, d_head=4, gated=True)


def test_order_is_that_of_the_list_and_heads_stand_together() -> None:
    places = [place(h) for h in SIZES.hook_points]
    assert places == sorted(set(places))
    assert place("blocks.1.attn.hook_z.2") == place("blocks.1.attn.hook_z")


def test_sizes_are_of_the_stream_the_heads_or_the_mlp() -> None:
    widths = {h.removeprefix("blocks.0."): SIZES.d(h) for h in SIZES.hook_points if not h.startswith("blocks.1")}
    assert {h for h, d in widths.items() if d == 20} == {"mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post"}
    assert {h for h, d in widths.items() if d == 12} == {"attn.hook_z"}
    assert {h for h, d in widths.items() if d == 8} == set(widths) - {
        "attn.hook_z",
        *(h for h in widths if "mlp." in h),
    }
    assert SIZES.d("blocks.0.attn.hook_z.2") == 4


def test_parallel_layers_have_no_stream_between_attention_and_mlp() -> None:
    parallel = Sizes(2, 9, 9, 8, 20, 3, 4, parallel=True)
    assert "blocks.0.hook_resid_mid" not in parallel.hook_points
    assert "blocks.0.mlp.hook_pre_linear" not in parallel.hook_points
