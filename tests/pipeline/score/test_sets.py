"""All MLPs replaced at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import GPT2LMHeadModel

from pipeline.claims import Claims
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.score.config import ScoreConfig
from pipeline.score.downstream import Replacement, Splice, evaluate
from pipeline.score.sets import sets_of
from pipeline.score.stage import summarize, units
from pipeline.score.subjects import Subject
from pipeline.tables import show_scores
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site
from tests.pipeline.score.made import dictionary, scored, subject

MID, OUT = ([f"blocks.{layer}.{site}" for layer in (0, 1)] for site in ("hook_resid_mid", "hook_mlp_out"))
POSITIONS = tuple(range(1, 24))
TOKENS = np.random.default_rng(0).integers(0, 4096, (6, 24), dtype=np.int32)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> LanguageModel:
    return load_model(ModelFiles.find(str(tiny_model)))


def transcoders() -> list[FeatureDictionary]:
    return [dictionary({MID[i]: 32}, {OUT[i]: 32}, seed=i) for i in (0, 1)]


def splices() -> list[Splice]:
    return [Splice(made.site, made) for made in transcoders()]


def spliced_by_hooks(tiny_model: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """(clean, spliced) log-probabilities at POSITIONS that predict, by plain hooks on the Hugging Face model."""
    own: Any = GPT2LMHeadModel.from_pretrained(tiny_model)
    x = torch.from_numpy(TOKENS).long()
    at, seen, handles = list(POSITIONS), {}, []
    with torch.no_grad():
        clean = own(x).logits
        for layer, made in enumerate(transcoders()):
            block = own.transformer.h[layer]

            def reads(module: Any, inputs: Any, layer: int = layer) -> None:
                seen[layer] = inputs[0]

            def writes(
                module: Any, inputs: Any, output: torch.Tensor, layer: int = layer, made: Any = made
            ) -> torch.Tensor:
                output = output.clone()
                output[:, at] = made(seen[layer][:, at])
                return output

            handles += [block.ln_2.register_forward_pre_hook(reads), block.mlp.c_proj.register_forward_hook(writes)]
        changed = own(x).logits
    for handle in handles:
        handle.remove()
    return clean[:, at[:-1]].log_softmax(-1), changed[:, at[:-1]].log_softmax(-1)


def test_each_reads_the_stream_that_those_before_it_changed(model: LanguageModel, tiny_model: Path) -> None:
    clean, changed = spliced_by_hooks(tiny_model)
    targets = torch.from_numpy(TOKENS[:, 2:]).long()
    live, apart = evaluate(model, TOKENS, POSITIONS, [Replacement(splices(), live=True), Replacement(splices())])
    assert live.ce == pytest.approx(float(F.nll_loss(changed.flatten(0, 1), targets.flatten())), abs=1e-5)
    assert live.kl == pytest.approx(float((clean.exp() * (clean - changed)).sum(-1).mean()), abs=1e-5)
    assert live.top1 == pytest.approx(float((clean.argmax(-1) == changed.argmax(-1)).double().mean()), abs=1e-9)
    assert abs(apart.kl - live.kl) > 1e-3  # what each reads in the clean pass is something else


def test_with_their_errors_the_logits_are_the_models(model: LanguageModel) -> None:
    plain, restored = (Replacement(splices(), live=True, errors=errors) for errors in (False, True))
    lost, kept = evaluate(model, TOKENS, POSITIONS, [plain, restored])
    assert lost.kl > 0.05
    assert abs(kept.kl) < 1e-6
    assert kept.ce == pytest.approx(kept.ce_clean, abs=1e-6)
    assert kept.top1 == 1


def test_what_is_read_before_the_pass_is_resumed_is_clean(model: LanguageModel) -> None:
    """Layer 1's MLP is made from what layer 0's reads."""
    made = dictionary({MID[0]: 32}, {OUT[1]: 32})
    live, apart = evaluate(
        model, TOKENS, POSITIONS, [Replacement([Splice(made.site, made)], live=live) for live in (True, False)]
    )
    assert live == apart


def test_a_set_is_scored_beside_its_dictionaries(mlps: ActivationStore, tmp_path: Path, capsys: Any) -> None:
    subjects = [subject(tmp_path, made, k=4) for made in transcoders()]
    scores = scored(tmp_path, mlps, subjects)
    alone = scores["dictionaries"]
    (row,) = scores["sets"]
    name = "blocks.0-1.hook_resid_mid--blocks.0-1.hook_mlp_out"
    assert row["site"] == name
    assert row["sites"] == [s.site.name for s in subjects]
    assert (tmp_path / "score" / f"all-{name}" / "map" / "manifest.json").exists()
    assert row["fvu"] == pytest.approx(sum(r["fvu"] for r in alone) / 2, abs=2e-6)
    assert row["ce_clean"] == alone[0]["ce_clean"]
    assert row["kl"] > max(r["kl"] for r in alone)
    assert abs(row["kl_with_errors"]) < 1e-6
    assert row["ce_with_errors"] == pytest.approx(row["ce_clean"], abs=1e-5)
    assert row["top1_with_errors"] == 1
    assert row["ce_zero"] not in {r["ce_zero"] for r in alone}
    assert {key.removesuffix("_with_errors") for key in row} <= set(alone[0]) | {"sites"}
    show_scores(tmp_path / "score" / "scores.json")
    shown = capsys.readouterr().out.split("\n")
    (title,) = (i for i, line in enumerate(shown) if line.startswith(f"{name}, all 2 spliced in at once; CE on "))
    assert f"zero ablation {row['ce_zero']:.3f}" in shown[title]
    assert shown[title + 2].split()[:3] == ["map", f"{row['fvu']:.3f}", f"{row['ce']:.3f}"]
    assert shown[title + 2].split()[-1] == "0.000000"


def test_a_set_is_in_the_table_when_its_members_are(mlps: ActivationStore, tmp_path: Path) -> None:
    """It may be scored first, or alone."""
    subjects = [subject(tmp_path, made, k=4) for made in transcoders()]
    scored(tmp_path, mlps, subjects)
    work = units(ScoreConfig(n_sequences=4), tmp_path, mlps, subjects)
    (work[0][1].folder / "manifest.json").unlink()
    with Claims(tmp_path) as claims:
        assert summarize(tmp_path, mlps, lambda: (work, []), claims)
    found = json.loads((tmp_path / "score" / "scores.json").read_text())
    assert [row["site"] for row in found["dictionaries"]] == [subjects[1].site.name]
    assert found["sets"] == []
    assert found["missing"] == [work[0][1].place, work[2][1].place]


def test_a_set_of_dictionaries_that_write_the_means_is_mean_ablation(mlps: ActivationStore, tmp_path: Path) -> None:
    means = [torch.from_numpy(mlps.stats(h).mean) for h in OUT]
    zeros = torch.zeros(16, 32)
    made = [dictionary({MID[i]: 32}, {OUT[i]: 32}, W_dec=zeros, b_dec=means[i]) for i in (0, 1)]
    (row,) = scored(tmp_path, mlps, [subject(tmp_path, one) for one in made])["sets"]
    assert row["ce"] == pytest.approx(row["ce_mean"], abs=1e-6)


def at(
    layer: int, name: str = "map", reads: str = "hook_resid_mid", writes: str = "hook_mlp_out", **settings: Any
) -> Subject:
    site = Site((f"blocks.{layer}.{reads}",), (f"blocks.{layer}.{writes}",))
    return Subject(site, name, "topk", settings, Path())


def test_sets_are_of_equal_settings_and_kinds_of_site() -> None:
    assert [s.site for s in sets_of([at(1), at(0)])[0].members] == [at(0).site, at(1).site]  # in the order of the pass
    assert sets_of([at(0)]) == []
    assert sets_of([at(0, k=1), at(1, k=2)]) == []
    assert sets_of([at(0, "a"), at(1, "b")]) == []
    assert sets_of([at(0), at(1, reads="ln2.hook_normalized")]) == []
    both = [at(layer, reads=reads) for layer in (0, 1) for reads in ("hook_resid_mid", "ln2.hook_normalized")]
    assert [len(one.members) for one in sets_of(both)] == [2, 2]


def test_sets_are_of_maps_that_write_after_they_read() -> None:
    assert sets_of([at(0, writes="hook_resid_mid"), at(1, writes="hook_resid_mid")]) == []  # autoencoders
    assert sets_of([at(0, writes="hook_resid_pre"), at(1, writes="hook_resid_pre")]) == []
    cross = [Site((f"blocks.{i}.hook_resid_pre",), tuple(OUT)) for i in (0, 1)]
    assert sets_of([Subject(site, "map", "topk", {}, Path()) for site in cross]) == []  # both write both
