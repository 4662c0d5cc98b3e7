"""Dictionaries in models that somebody has loaded: the numbers of the score stage's own models, and nothing left behind."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import UserError
from pipeline.models.files import DEMO, ModelFiles
from pipeline.models.load import load_model
from pipeline.splicing import Splice, _Pass, activations, spliced
from stores import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.pipeline.models.small import save_small

KINDS = ["gpt2", "gpt_neox, sequential", "llama", "gemma2"]


def dictionary(site: Site, d_in: int, d_out: int, d_writes: tuple[int, ...] = ()) -> FeatureDictionary:
    """A random TopK of 24 features."""
    draw = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(d_in, 24, generator=draw), torch.randn(24, d_out, generator=draw)
    across = site.reads != site.writes
    spec = Spec("topk", d_in, 24, site, k=4, d_out=d_out if across else None, d_writes=d_writes)
    return FeatureDictionary(spec, W_enc, torch.randn(24, generator=draw), W_dec, torch.randn(d_out, generator=draw))


def autoencoder(hook_point: str, d: int) -> FeatureDictionary:
    return dictionary(Site.at(hook_point), d, d)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(0, 4096, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"gpt2": DEMO, **{kind: save_small(tmp_path_factory.mktemp("model"), kind) for kind in KINDS[1:]}}


@pytest.fixture(scope="module")
def theirs(folders: dict[str, Path]) -> dict[str, Any]:
    """transformers' models."""
    from transformers import AutoModelForCausalLM

    return {
        kind: AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for kind, folder in folders.items()
    }


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(tokens)
    return found if isinstance(found, torch.Tensor) else found.logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("site", ["hook_resid_post", "hook_resid_mid", "mlp.hook_post", "attn.hook_z", "hook_mlp_out"])
def test_logits_are_those_of_the_score_stage(
    theirs: dict[str, Any], folders: dict[str, Path], tokens: torch.Tensor, kind: str, site: str
) -> None:
    """And without it they are what they were."""
    files, hook_point = ModelFiles.find(str(folders[kind])), f"blocks.1.{site}"
    own, before = autoencoder(hook_point, files.d(hook_point)), logits(theirs[kind], tokens)
    expected = load_model(files).forward(tokens, edit={hook_point: lambda x, _: own(x)}, logits=True)[1]
    with spliced(theirs[kind], Splice(own)):
        torch.testing.assert_close(logits(theirs[kind], tokens), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(theirs[kind], tokens), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_transcoder_reads_and_writes_in_one_pass(
    theirs: dict[str, Any], folders: dict[str, Path], tokens: torch.Tensor, kind: str
) -> None:
    files = ModelFiles.find(str(folders[kind]))
    reads, writes = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"
    own = dictionary(Site((reads,), (writes,)), files.d(reads), files.d(writes))
    edit = {writes: lambda _, seen: own(seen[reads])}
    expected = load_model(files).forward(tokens, capture=[reads], edit=edit, logits=True)[1]
    with spliced(theirs[kind], Splice(own)):
        torch.testing.assert_close(logits(theirs[kind], tokens), expected, atol=1e-4, rtol=1e-4)


def test_with_the_error_kept_a_change_adds_its_feature_and_nothing_else(
    theirs: dict[str, Any], tokens: torch.Tensor
) -> None:
    hook_point = "blocks.2.hook_resid_post"
    model, own = theirs["gpt2"], autoencoder(hook_point, 192)
    with spliced(model, Splice(own, keep_error=True)):
        torch.testing.assert_close(logits(model, tokens), logits(theirs["gpt2"], tokens))
    z = activations(model, own, tokens)
    change: dict[str, Any] = {"scale": {3: 0.5}, "add": {3: 0.25, 7: 2.0}, "clamp": {9: -1.5, 20: 0.0}}
    by = torch.zeros_like(z)
    by[..., 3], by[..., 7] = -0.5 * z[..., 3] + 0.25, 2.0
    by[..., 9], by[..., 20] = -1.5 - z[..., 9], -z[..., 20]
    added = by @ own.W_dec
    edit = {hook_point: lambda x, _: x + added}
    expected = load_model(ModelFiles.find("demo")).forward(tokens, edit=edit, logits=True)[1]
    with spliced(model, Splice(own, keep_error=True, **change)):
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-3, rtol=1e-4)


def test_several_dictionaries_stand_in_one_pass(theirs: dict[str, Any], tokens: torch.Tensor) -> None:
    model, hook_points = theirs["gpt2"], ("blocks.0.hook_resid_post", "blocks.2.mlp.hook_post")
    own = {h: autoencoder(h, d) for h, d in zip(hook_points, (192, 768), strict=True)}
    edit = {h: (lambda x, _, d=d: d(x)) for h, d in own.items()}
    expected = load_model(ModelFiles.find("demo")).forward(tokens, edit=edit, logits=True)[1]
    with spliced(model, *map(Splice, own.values())):
        torch.testing.assert_close(logits(model, tokens), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("positions", [None, [3, 14]])
def test_generation_with_a_cache_is_generation_without(
    theirs: dict[str, Any], tokens: torch.Tensor, positions: list[int] | None
) -> None:
    """12 tokens are given: of positions 3 and 14 one is there in the first pass, the other in a later one."""
    model = theirs["gpt2"]
    splice = Splice(autoencoder("blocks.1.hook_resid_post", 192), True, clamp={5: 40.0}, positions=positions)
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
    plain = model.generate(tokens, **options)
    with spliced(model, splice):
        cached, whole = (model.generate(tokens, use_cache=cache, **options) for cache in (True, False))
    assert torch.equal(cached, whole)
    assert not torch.equal(cached, plain)
    assert torch.equal(model.generate(tokens, **options), plain)


def test_one_within_another_leaves_the_outer_one_as_it_was(theirs: dict[str, Any], tokens: torch.Tensor) -> None:
    model = theirs["gpt2"]
    outer, inner = (Splice(autoencoder(f"blocks.{i}.hook_resid_post", 192), positions=[11]) for i in (1, 3))
    before = logits(model, tokens)
    with spliced(model, outer):
        alone = logits(model, tokens)
        with spliced(model, inner):
            both = logits(model, tokens)
        assert torch.equal(logits(model, tokens), alone)
    assert torch.equal(logits(model, tokens), before)
    with spliced(model, outer, inner):
        assert torch.equal(logits(model, tokens), both)
    assert "forward" not in vars(model)


def test_positions_are_those_alone(theirs: dict[str, Any], tokens: torch.Tensor) -> None:
    model, own = theirs["gpt2"], autoencoder("blocks.3.hook_resid_post", 192)
    before = logits(model, tokens)
    with spliced(model, Splice(own, positions=[0, 5])):
        found = (logits(model, tokens) != before).any(-1)
    assert found.nonzero()[:, 1].unique().tolist() == [0, 5]


def test_nothing_is_left_after_an_error(theirs: dict[str, Any], tokens: torch.Tensor) -> None:
    model, own = theirs["gpt2"], autoencoder("blocks.1.hook_resid_mid", 192)
    before = {name: p.clone() for name, p in model.state_dict().items()}

    def fail() -> None:
        with spliced(model, Splice(own)):
            logits(model, tokens)
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


@pytest.mark.parametrize(
    ("splices", "message"),
    [
        ([Splice(autoencoder("blocks.9.hook_resid_post", 192))], "layer 9 is out of range"),
        ([Splice(autoencoder("blocks.1.hook_resid_post", 64))], "reads d = 64, the model has 192"),
        ([Splice(autoencoder("blocks.1.hook_resid_post", 192), clamp={24: 1.0})], "has features 0 to 23, got 24"),
        ([Splice(autoencoder("", 192))], "load it with its hook point"),
        ([Splice(autoencoder("blocks.1.hook_resid_post", 192))] * 2, "two dictionaries write blocks.1.hook_resid_post"),
        (
            [Splice(dictionary(Site(("blocks.1.hook_resid_post",), ("blocks.0.hook_mlp_out",)), 192, 192))],
            "reads what comes after it writes",
        ),
    ],
)
def test_what_cannot_stand_there_is_told(theirs: dict[str, Any], splices: list[Splice], message: str) -> None:
    with pytest.raises(UserError, match=message), spliced(theirs["gpt2"], *splices):
        pass


def test_another_kind_of_model_is_told() -> None:
    with pytest.raises(UserError, match="a Linear is no model that is known"), spliced(torch.nn.Linear(2, 2)):
        pass


@pytest.mark.interop
@pytest.mark.parametrize("site", ["hook_resid_post", "mlp.hook_post", "attn.hook_z", "hook_mlp_out"])
def test_a_bridge_of_transformer_lens_gives_the_same(
    theirs: dict[str, Any], folders: dict[str, Path], tokens: torch.Tensor, site: str
) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    bridge: Any = TransformerBridge.boot_transformers(str(folders["llama"]), device="cpu")
    hook_point = f"blocks.1.{site}"
    own, before = autoencoder(hook_point, ModelFiles.find(str(folders["llama"])).d(hook_point)), logits(bridge, tokens)
    with spliced(theirs["llama"], Splice(own)):
        expected = logits(theirs["llama"], tokens)
    with spliced(bridge, Splice(own)):
        torch.testing.assert_close(logits(bridge, tokens), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(logits(bridge, tokens), before)


@pytest.mark.interop
def test_a_hooked_transformer_gives_what_its_own_hooks_give(tokens: torch.Tensor) -> None:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(0)
    model: Any = HookedTransformer(
        HookedTransformerConfig(n_layers=2, d_model=32, n_ctx=32, d_head=8, d_vocab=4096, act_fn="gelu", device="cpu")
    )
    hook_point = "blocks.0.attn.hook_z"
    own = autoencoder(hook_point, 32)
    by_hand = [(hook_point, lambda z, hook: own(z.flatten(2)).reshape(z.shape))]
    with torch.no_grad():
        expected = model.run_with_hooks(tokens, fwd_hooks=by_hand)
        with spliced(model, Splice(own)):
            torch.testing.assert_close(model(tokens), expected)
    starts: list[tuple[int, int]] = []
    passing = _Pass()
    seen = [("blocks.0.hook_resid_pre", lambda x, hook: starts.append((passing.start, x.shape[1])))]
    with passing.watching(model), model.hooks(fwd_hooks=seen):
        model.generate(tokens[:1], max_new_tokens=3, do_sample=False, stop_at_eos=False, verbose=False)
    assert starts == [(0, 12), (12, 1), (13, 1)]
    assert "forward" not in vars(model)
