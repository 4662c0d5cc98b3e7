"""Dictionaries in models that somebody has loaded: the numbers of the score stage's own models, and nothing left behind."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import UserError
from pipeline.models.files import DEMO, ModelFiles
from pipeline.models.hook_points import Sizes
from pipeline.models.hooks import Edit
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.score.downstream import Replacement, evaluate
from pipeline.splicing import Splice, activations, logits_of, spliced
from stores import FeatureDictionary
from stores.site import Site
from stores.spec import Spec
from tests.pipeline.models.small import SMALL, save_small

pytestmark = pytest.mark.filterwarnings("ignore:A forward hook edited")  # TransformerLens's, of norms

RESID, EARLIER = "blocks.1.hook_resid_post", "blocks.0.hook_resid_post"
CLASSES = [
    "transformers",
    pytest.param("bridge", marks=pytest.mark.interop),
    pytest.param("hooked", marks=pytest.mark.interop),
]


def dictionary(site: Site, d_in: int, d_out: int) -> FeatureDictionary:
    """A random TopK of 24 features, what it writes about as large as what it reads."""
    draw = torch.Generator().manual_seed(0)
    W_enc, W_dec = torch.randn(d_in, 24, generator=draw) / d_in**0.5, torch.randn(24, d_out, generator=draw) / 2
    n, across = len(site.writes), site.reads != site.writes
    d_writes = (d_out // n,) * n if n > 1 else ()
    spec = Spec("topk", d_in, 24, site, k=4, d_out=d_out if across else None, d_writes=d_writes)
    return FeatureDictionary(spec, W_enc, torch.randn(24, generator=draw), W_dec, torch.randn(d_out, generator=draw))


def autoencoder(hook_point: str, d: int) -> FeatureDictionary:
    return dictionary(Site.at(hook_point), d, d)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(1, 4096, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the architecture that a test names; of one after another."""
    return DEMO if request.param == "gpt2" else save_small(tmp_path_factory.mktemp("model"), request.param)


def of_transformers(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def bridge(folder: Path) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(folder), device="cpu")


def hooked(folder: Path, folded: bool = False) -> Any:
    """A HookedTransformer with the weights of tiny_model."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.loading_from_pretrained import convert_gpt2_weights
    from transformers import AutoTokenizer

    config = HookedTransformerConfig(
        n_layers=2, d_model=32, n_ctx=64, d_head=16, n_heads=2, d_vocab=4096, act_fn="gelu_new", normalization_type="LN"
    )
    model: Any = HookedTransformer(config, AutoTokenizer.from_pretrained(folder))
    model.load_and_process_state_dict(
        convert_gpt2_weights(of_transformers(folder), config),
        fold_ln=folded, center_writing_weights=folded, center_unembed=folded, fold_value_biases=folded,
    )  # fmt: skip
    return model.eval()


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> dict[str, Any]:
    """tiny_model as each library has it."""
    return {"transformers": of_transformers(tiny_model), "bridge": bridge(tiny_model), "hooked": hooked(tiny_model)}


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(tokens)
    return found if isinstance(found, torch.Tensor) else found.logits


def assert_same(found: torch.Tensor, expected: torch.Tensor, what: str = "") -> None:
    """To 1e-5 of the largest one."""
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), what


def generated(model: Any, tokens: torch.Tensor, cache: bool) -> torch.Tensor:
    """Eight tokens more, each the most probable one."""
    if hasattr(model, "hook_dict"):
        options: dict[str, Any] = {"stop_at_eos": False, "verbose": False, "use_past_kv_cache": cache}
    else:
        options = {
            "use_cache": cache,
            "pad_token_id": 0,
            "eos_token_id": None,
            "attention_mask": torch.ones_like(tokens),
        }
    return model.generate(tokens, max_new_tokens=8, do_sample=False, **options)


def sites(sizes: Sizes) -> dict[str, FeatureDictionary]:
    """A dictionary at each hook point of a layer, and at one head."""
    names = [h for h in sizes.hook_points if h.startswith(("hook_embed", "blocks.1."))]
    return {h: autoencoder(h, sizes.d(h)) for h in [*names, f"blocks.1.attn.hook_z.{sizes.n_heads - 1}"]}


def clamped(own: FeatureDictionary) -> Edit:
    """Feature 3 at 4, all else as it is."""
    return lambda x, _: x + (4.0 - own.encode(x)[..., 3:4]) * own.W_dec[3]


def check_sites(models: Iterable[Any], ours: LanguageModel, tokens: torch.Tensor) -> None:
    """Each alone: a reconstruction, and a clamp that keeps the error."""
    for hook_point, own in sites(ours.files.sizes).items():
        whole = ours.forward(tokens, edit={hook_point: lambda x, _, own=own: own(x)}, logits=True)[1]
        kept = ours.forward(tokens, edit={hook_point: clamped(own)}, logits=True)[1]
        for model in models:
            with own.spliced(model):
                assert_same(logits(model, tokens), whole, hook_point)
            with own.spliced(model, keep_error=True, clamp={3: 4.0}):
                assert_same(logits(model, tokens), kept, hook_point)


@pytest.mark.interop
@pytest.mark.parametrize("folder", ["gpt2", *SMALL], indirect=True)
def test_logits_are_those_of_the_score_stage(folder: Path, tokens: torch.Tensor) -> None:
    """In transformers' model and in TransformerLens's bridge, at all hook points at once; and without a dictionary they are
    what they were."""
    ours, models = load_model(ModelFiles.find(str(folder))), [of_transformers(folder), bridge(folder)]
    before = [logits(model, tokens) for model in models]
    every = sites(ours.files.sizes)
    expected = ours.forward(tokens, edit={h: clamped(own) for h, own in every.items()}, logits=True)[1]
    splices = [Splice(own, keep_error=True, clamp={3: 4.0}) for own in every.values()]
    reads, writes = "blocks.0.ln2.hook_normalized", "blocks.0.hook_mlp_out"
    transcoder = dictionary(Site((reads,), (writes,)), ours.files.d(reads), ours.files.d(writes))
    edit: dict[str, Edit] = {writes: lambda _, seen: transcoder(seen[reads])}
    across = ours.forward(tokens, capture=[reads], edit=edit, logits=True)[1]
    for model, old in zip(models, before, strict=True):
        with spliced(model, *splices):
            assert_same(logits(model, tokens), expected)
        with transcoder.spliced(model):
            assert_same(logits(model, tokens), across)
        assert torch.equal(logits(model, tokens), old)


@pytest.mark.slow
@pytest.mark.interop
@pytest.mark.parametrize("folder", ["gpt2", *SMALL], indirect=True)
def test_logits_are_those_of_the_score_stage_at_each_hook_point(folder: Path, tokens: torch.Tensor) -> None:
    models = [of_transformers(folder), bridge(folder)]
    check_sites(models, load_model(ModelFiles.find(str(folder))), tokens)


@pytest.mark.interop
def test_logits_of_a_hooked_transformer_are_those_of_the_score_stage(
    tiny: dict[str, Any], tiny_model: Path, tokens: torch.Tensor
) -> None:
    check_sites([tiny["hooked"]], load_model(ModelFiles.find(str(tiny_model))), tokens)


@pytest.mark.interop
@pytest.mark.parametrize("site", ["hook_resid_mid", "attn.hook_z"])
def test_folded_weights_are_those_of_the_score_stage(tiny_model: Path, tokens: torch.Tensor, site: str) -> None:
    """Up to a constant of each position, which folding takes out of TransformerLens's logits."""
    files, hook_point = ModelFiles.find(str(tiny_model)), f"blocks.1.{site}"
    own = autoencoder(hook_point, files.d(hook_point))
    expected = load_model(files, "folded").forward(tokens, edit={hook_point: lambda x, _: own(x)}, logits=True)[1]
    model = hooked(tiny_model, folded=True)
    with own.spliced(model):
        assert_same(logits(model, tokens).log_softmax(-1), expected.log_softmax(-1))


def test_the_cross_entropy_is_the_one_that_is_scored(
    tiny: dict[str, Any], tiny_model: Path, tokens: torch.Tensor
) -> None:
    """Which leaves BOS as it is."""
    own, positions = autoencoder(RESID, 32), tuple(range(1, 12))
    scored = evaluate(
        load_model(ModelFiles.find(str(tiny_model))), tokens.numpy(), positions, [Replacement.at(RESID, own)]
    )
    with own.spliced(tiny["transformers"], positions=positions):
        found = logits(tiny["transformers"], tokens)[:, 1:-1]
    ce = torch.nn.functional.cross_entropy(found.flatten(0, 1), tokens[:, 2:].flatten())
    assert float(ce) == pytest.approx(scored[0].ce, rel=1e-5)


@pytest.mark.parametrize("name", CLASSES)
def test_a_crosscoder_reads_a_pass_without_a_change(
    tiny: dict[str, Any], tiny_model: Path, tokens: torch.Tensor, name: str
) -> None:
    """As the score stage has it. Generation then takes no cache."""
    model, own = (
        load_model(ModelFiles.find(str(tiny_model))),
        dictionary(Site((EARLIER, RESID), (EARLIER, RESID)), 64, 64),
    )
    clean, _ = model.forward(tokens, capture=[EARLIER, RESID])
    x = torch.cat([clean[EARLIER], clean[RESID]], -1)
    change = (2.0 - own.encode(x)[..., 3:4]) * own.W_dec[3]
    edit = {EARLIER: lambda y, _: own(x)[..., :32], RESID: lambda y, _: own(x)[..., 32:]}
    kept = {EARLIER: lambda y, _: y + change[..., :32], RESID: lambda y, _: y + change[..., 32:]}
    with own.spliced(tiny[name]):
        assert_same(logits(tiny[name], tokens), model.forward(tokens, edit=edit, logits=True)[1])
    expected = model.forward(tokens, edit=kept, logits=True)[1]
    assert torch.equal(logits_of(model, tokens, Splice(own, keep_error=True, clamp={3: 2.0})), expected)
    with own.spliced(tiny[name], keep_error=True, clamp={3: 2.0}):
        assert_same(logits(tiny[name], tokens), expected)
        text = generated(tiny[name], tokens, cache=False)
        assert torch.equal(text[:, 12:], logits(tiny[name], text)[:, 11:-1].argmax(-1))
        with pytest.raises(UserError, match="reads what comes after it writes.*without a cache"):
            generated(tiny[name], tokens, cache=True)


def test_with_the_error_kept_a_change_adds_its_feature_and_nothing_else(
    tiny: dict[str, Any], tiny_model: Path, tokens: torch.Tensor
) -> None:
    model, own = tiny["transformers"], autoencoder(RESID, 32)
    before = logits(model, tokens)
    with own.spliced(model, keep_error=True):
        assert torch.equal(logits(model, tokens), before)
    z = own.activations(model, tokens)
    by = torch.zeros_like(z)
    by[..., 3], by[..., 7] = -0.5 * z[..., 3] + 0.25, 2.0
    by[..., 9], by[..., 20] = -1.5 - z[..., 9], -z[..., 20]
    edit = {RESID: lambda x, _: x + by @ own.W_dec}
    expected = load_model(ModelFiles.find(str(tiny_model))).forward(tokens, edit=edit, logits=True)[1]
    with own.spliced(model, keep_error=True, scale={3: 0.5}, add={3: 0.25, 7: 2.0}, clamp={9: -1.5, 20: 0.0}):
        assert_same(logits(model, tokens), expected)


@pytest.mark.parametrize("name", CLASSES)
def test_several_dictionaries_stand_in_one_pass(
    tiny: dict[str, Any], tiny_model: Path, tokens: torch.Tensor, name: str
) -> None:
    """One within another at one hook point changes what the outer one leaves there."""
    hook_points = {EARLIER: 32, "blocks.1.mlp.hook_post": 128}
    own = {h: autoencoder(h, d) for h, d in hook_points.items()}
    edit = {h: (lambda x, _, d=d: d(x)) for h, d in own.items()}
    forward = load_model(ModelFiles.find(str(tiny_model))).forward
    with spliced(tiny[name], *map(Splice, own.values())):
        assert_same(logits(tiny[name], tokens), forward(tokens, edit=edit, logits=True)[1])
    first, second = autoencoder("blocks.1.hook_resid_mid", 32), autoencoder("blocks.1.hook_resid_mid", 32)
    second.b_dec += 1.0
    with first.spliced(tiny[name]), second.spliced(tiny[name]):
        both = {"blocks.1.hook_resid_mid": lambda x, _: second(first(x))}
        assert_same(logits(tiny[name], tokens), forward(tokens, edit=both, logits=True)[1])


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("positions", [None, [3, 14]])
def test_generation_with_a_cache_is_generation_without(
    tiny: dict[str, Any], tokens: torch.Tensor, name: str, positions: list[int] | None
) -> None:
    """12 tokens are given: of positions 3 and 14 one is there in the first pass, the other in a later one."""
    model, own = tiny[name], autoencoder(EARLIER, 32)
    plain = generated(model, tokens, cache=True)
    with own.spliced(model, keep_error=True, clamp={5: 40.0}, positions=positions):
        cached, whole = (generated(model, tokens, cache) for cache in (True, False))
        assert torch.equal(cached[:, 12:], logits(model, cached)[:, 11:-1].argmax(-1))
        if name == "bridge":  # of the model that it wraps
            options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
            assert torch.equal(model.hf_generate(tokens, **options), cached)
    assert torch.equal(cached, whole)
    assert not torch.equal(cached, plain)
    assert torch.equal(generated(model, tokens, cache=True), plain)


@pytest.mark.parametrize("name", CLASSES)
def test_positions_are_those_alone(tiny: dict[str, Any], tokens: torch.Tensor, name: str) -> None:
    before = logits(tiny[name], tokens)
    with autoencoder(RESID, 32).spliced(tiny[name], positions=[0, 5]):
        found = (logits(tiny[name], tokens) != before).any(-1)
    assert found.nonzero()[:, 1].unique().tolist() == [0, 5]


def traces(model: Any) -> list[Any]:
    """All that a splicing could leave: weights, hooks, methods in the place of others."""
    weights = [(name, value.clone()) for name, value in model.state_dict().items()]
    hooks = [(list(m._forward_hooks), list(m._forward_pre_hooks), "forward" in vars(m)) for m in model.modules()]
    return [[name for name, _ in weights], hooks, *(value for _, value in weights)]


def same(a: list[Any], b: list[Any]) -> bool:
    return a[:2] == b[:2] and all(torch.equal(x, y) for x, y in zip(a[2:], b[2:], strict=True))


@pytest.mark.parametrize("name", CLASSES)
def test_the_model_is_as_it_was(tiny: dict[str, Any], tokens: torch.Tensor, name: str) -> None:
    """After one within another, after an error in it and in the pass; a hook that its owner has there stays."""
    model = tiny[name]
    outer, inner = autoencoder(EARLIER, 32), autoencoder("blocks.1.hook_resid_mid", 32)
    if hasattr(model, "hook_dict"):
        model.add_hook(EARLIER, lambda x, hook: None)
    else:
        model.transformer.h[0].register_forward_hook(lambda *_: None)
    untouched, before = traces(model), logits(model, tokens)
    with outer.spliced(model, positions=[11]):
        alone = logits(model, tokens)
        between = traces(model)
        with inner.spliced(model, positions=[11]):
            both = logits(model, tokens)
        assert torch.equal(logits(model, tokens), alone)
        assert same(traces(model), between)
        with pytest.raises(ZeroDivisionError), inner.spliced(model):
            _ = 1 / len(logits(model, tokens)[:0])
        assert same(traces(model), between)
    assert same(traces(model), untouched)
    broken = autoencoder("blocks.1.hook_resid_mid", 32)
    broken.b_enc = torch.zeros(7)
    with pytest.raises(RuntimeError), outer.spliced(model), broken.spliced(model):
        logits(model, tokens)
    assert same(traces(model), untouched)
    assert torch.equal(logits(model, tokens), before)
    with spliced(model, Splice(outer, positions=[11]), Splice(inner, positions=[11])):
        assert torch.equal(logits(model, tokens), both)
    assert same(traces(model), untouched)


@pytest.mark.parametrize("name", CLASSES)
def test_activations_of_a_text_begin_with_bos(tiny: dict[str, Any], tiny_model: Path, name: str) -> None:
    """By the model's own tokenizer, transformers' or that of tokenizers."""
    from transformers import AutoTokenizer

    files, text, own = ModelFiles.find(str(tiny_model)), "def walk(path):\n", autoencoder(RESID, 32)
    ids = [files.bos, *files.tokenizer.encode(text).ids]
    x = load_model(files).forward(torch.tensor([ids]), capture=[RESID])[0][RESID]
    given = {"tokenizers": files.tokenizer, "transformers": AutoTokenizer.from_pretrained(tiny_model)}
    given |= {} if name == "transformers" else {"its own": None}
    for what, tokenizer in given.items():
        found = own.activations(tiny[name], text, tokenizer)
        torch.testing.assert_close(found, own.encode(x), atol=1e-4, rtol=1e-4, msg=what)
    assert torch.equal(activations(tiny[name], own, torch.tensor([ids])), found)


@pytest.mark.parametrize(
    ("splices", "message"),
    [
        ([Splice(autoencoder("blocks.9.hook_resid_post", 32))], "layer 9 is out of range"),
        ([Splice(autoencoder(RESID, 64))], "reads d = 64, the model has 32"),
        ([Splice(autoencoder(RESID, 32), clamp={24: 1.0})], "has features 0 to 23, got 24"),
        ([Splice(autoencoder(RESID, 32), positions=[-1])], "counted from 0, got -1"),
        ([Splice(autoencoder("", 32))], "load it with its hook point"),
        ([Splice(autoencoder(RESID, 32))] * 2, f"two dictionaries write {RESID}"),
    ],
)
def test_what_cannot_stand_there_is_told(tiny: dict[str, Any], splices: list[Splice], message: str) -> None:
    with pytest.raises(UserError, match=message), spliced(tiny["transformers"], *splices):
        pass


def test_activations_at_unknown_hook_points_are_told(tiny: dict[str, Any], tokens: torch.Tensor) -> None:
    with pytest.raises(UserError, match="load it with its hook point"):
        autoencoder("", 32).activations(tiny["transformers"], tokens)


def test_what_is_read_too_early_is_told(tiny: dict[str, Any], tokens: torch.Tensor) -> None:
    crosscoder = dictionary(Site((EARLIER, RESID), (EARLIER, RESID)), 64, 64)
    with crosscoder.spliced(tiny["transformers"]), pytest.raises(UserError, match="call the model itself"):
        tiny["transformers"].transformer(tokens)


def test_a_text_without_a_tokenizer_is_told(tiny: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="has no tokenizer: give tokenizer="):
        autoencoder(RESID, 32).activations(tiny["transformers"], "def")


def test_another_kind_of_model_is_told(tiny: dict[str, Any]) -> None:
    part = tiny["transformers"].transformer
    with (
        pytest.raises(UserError, match="a GPT2Model cannot be listened to: take AutoModelForCausalLM"),
        spliced(part, Splice(autoencoder(RESID, 32))),
    ):
        pass
    with pytest.raises(UserError, match="a Linear is no model that is known"), spliced(torch.nn.Linear(2, 2)):
        pass


def test_a_dictionary_without_the_pipeline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.splicing", None)
    with pytest.raises(ImportError, match="needs the package pipeline beside stores"):
        autoencoder(RESID, 32).spliced(None)
