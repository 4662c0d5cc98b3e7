"""Relations between words, and neurons, of a language model."""

import numpy as np
import pytest
import torch

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.toy.representations import neurons as neurons_file
from pipeline.toy.representations import relations as relations_file
from pipeline.toy.representations.experiment import Settings, inputs
from pipeline.toy.representations.neurons import LEAST, best_unit, labels
from pipeline.toy.representations.relations import alone, held_out_cosine, measured, permutation_p, ranks
from pipeline.toy.representations.words import NOUNS, PLURAL, in_vocabulary, plural, relations


def test_plurals_are_spelt_by_the_rules() -> None:
    assert [plural(w) for w in ("key", "class", "entry", "box", "branch", "child")] == [
        "keys",
        "classes",
        "entries",
        "boxes",
        "branches",
        "children",
    ]


def test_no_word_stands_twice_on_one_side_of_a_relation() -> None:
    assert len(NOUNS) == len(set(NOUNS))
    for name, pairs in relations().items():
        assert len(pairs) == len(set(pairs)), name
        assert len({a for a, _ in pairs}) == len(pairs) or name == "opposites", name


def test_a_pair_counts_once_and_only_when_both_are_single_tokens() -> None:
    vocabulary = {t: i for i, t in enumerate(["Ġdog", "Ġdogs", "cat", "cats", "Ġcat", "dog", "dogs", "pig"])}
    pairs = [("dog", "dogs"), ("cat", "cats"), ("pig", "pigs")]
    assert in_vocabulary(pairs, vocabulary) == [("Ġdog", "Ġdogs"), ("cat", "cats")]


def planted(noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """300 random words; of 30 there is another, at one offset."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 50, generator=generator, dtype=torch.double)
    offset = torch.randn(50, generator=generator, dtype=torch.double)
    x[30:60] = x[:30] + offset + noise * torch.randn(30, 50, generator=generator, dtype=torch.double)
    return x, torch.arange(30), torch.arange(30, 60)


def test_a_planted_relation_is_found_and_one_of_random_words_is_not() -> None:
    x, a, b = planted(0.3)
    found = measured(x, a, b, torch.arange(300), 99, 0)
    assert min(found["cosine"]) > 0.9
    assert found["p"] == 0.01
    assert found["rank"] == [1] * 30
    x = torch.randn(300, 50, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    null = measured(x, a, b, torch.arange(300), 99, 0)
    assert abs(np.mean(null["cosine"])) < 0.1
    assert null["p"] > 0.05
    assert abs(np.mean(null["above_random"]) - 0.5) < 0.2


def test_dealt_out_words_show_that_two_kinds_differ_is_not_enough() -> None:
    # Two clouds with one offset between their middles, and no pairs: the cosine is large, p is not small.
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 50, generator=generator), torch.randn(30, 50, generator=generator) + 3
    assert float(held_out_cosine(a, b).mean()) > 0.8
    assert permutation_p(a, b, 99, 0) > 0.05


def test_the_held_out_cosine_is_with_the_mean_of_the_others() -> None:
    x, a, b = planted(1.0)
    offset = x[b] - x[a]
    expected = torch.cosine_similarity(offset[3], torch.cat([offset[:3], offset[4:]]).mean(0), dim=0)
    assert float(held_out_cosine(x[a], x[b])[3]) == pytest.approx(float(expected))


def test_ranks_leave_the_word_itself_out() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    a, b = torch.tensor([0, 0]), torch.tensor([1, 2])
    assert ranks(x, a, b, torch.zeros(2, 2)) == [1, 2]
    assert ranks(x, a, b, torch.tensor([[0.0, 9.0], [0.0, 9.0]])) == [2, 1]


def test_the_embedding_of_a_token_alone_is_the_models() -> None:
    files = ModelFiles.find("demo")
    model = load_model(files)
    (x,) = alone(model, ["blocks.0.hook_resid_pre"])
    transformer = model.model.transformer
    expected = transformer.wte.weight + transformer.wpe.weight[1]
    assert torch.allclose(x.float(), expected, atol=1e-6)


def test_qualities_are_told_from_the_text_and_rare_ones_are_left_out(monkeypatch) -> None:
    tokens = ["Ġname"] * LEAST + ["NAME"] * LEAST + ["x1"]
    found = labels(tokens)
    assert found["begins with a space"].sum() == LEAST
    assert found["upper case only"].sum() == LEAST
    assert "has a digit" not in found
    monkeypatch.setattr(neurons_file, "LEAST", 1)
    assert labels(tokens)["has a digit"].sum() == 1


def test_the_best_unit_is_chosen_on_one_half_and_measured_on_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 40, generator=generator)
    y = torch.rand(2000, 2, generator=generator).numpy() < 0.3
    x[:, 7] = -torch.from_numpy(y[:, 0] * 10.0)  # one unit is low where the first quality is
    carried, null = best_unit(x, y, np.arange(2000) < 1000)
    assert carried == 1
    assert abs(null - 0.5) < 0.06  # the best of 40 by chance, on fresh tokens: ½ within two standard errors of .02


def test_a_model_without_plurals_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(relations_file, "word_relations", lambda: {PLURAL: [("cat", "cats"), ("file", "files")]})
    with pytest.raises(UserError, match=r"representations\.model: demo has 1 plural pairs of tokens, 6 are needed"):
        inputs(Settings())
