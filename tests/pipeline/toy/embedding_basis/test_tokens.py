"""Counts, correlations and kinds of tokens, against reference libraries and small cases."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline.config import UserError
from pipeline.extract.text import text_files
from pipeline.models.files import ModelFiles
from pipeline.toy.embedding_basis import experiment, tokens
from pipeline.toy.embedding_basis.tokens import KINDS, TEXT, correlations, extremes, frequency, kinds, separation


def test_counts_are_those_of_the_text() -> None:
    files = ModelFiles.find("demo")
    counts = tokens.token_counts(files, 3)
    text = "".join(path.read_text() for path in text_files(TEXT)[:3])
    names = [files.tokenizer.id_to_token(i) for i in range(len(counts))]
    assert sum(n * len(name) for n, name in zip(counts, names, strict=True)) == len(text.encode())  # byte-level tokens


def test_correlations_are_numpys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((500, 4)), rng.standard_normal(500)
    x[:, 1] -= 2 * y
    found = correlations(x, y)
    assert found == pytest.approx([abs(np.corrcoef(x[:, i], y)[0, 1]) for i in range(4)])
    one = frequency(x[:, 1:], y)
    assert one["r"][0] == pytest.approx(found[1])
    assert one["r"][1] < one["r"][0] < one["r"][2]
    assert one["each"] == pytest.approx(found[1:], abs=1e-4)


def test_separation_is_the_auroc_of_either_sign() -> None:
    rng = np.random.default_rng(1)
    x, of = rng.standard_normal((300, 3)).round(1), rng.random(300) < 0.2  # with ties
    x[of, 2] -= 1
    expected = [max(a, 1 - a) for a in (roc_auc_score(of, x[:, i]) for i in range(3))]
    assert separation(x, {"kind": of})[:, 0] == pytest.approx(expected)


def test_kinds_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MIN_KIND", 1)
    names = ["Ġthe", "The", "42", "ĠĠĠ", "==", "self_", "Ċ"]
    found = {kind: [n for n, there in zip(names, of, strict=True) if there] for kind, of in kinds(names).items()}
    assert found == {
        "a space before it": ["Ġthe", "ĠĠĠ"],
        "letters only": ["Ġthe", "The"],
        "a capital first": ["The"],
        "digits": ["42"],
        "punctuation only": ["=="],
        "white space only": ["ĠĠĠ", "Ċ"],
        "an underscore in it": ["self_"],
    }
    assert set(found) == set(KINDS)


def test_extremes_come_with_the_outermost_first() -> None:
    assert extremes(torch.tensor([1.0, 3.0, -2.0, 0.0]), ["a", "Ġb", "Ċ", "d"], 2) == (["␣b", "a"], ["↵", "d"])


def test_more_files_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="n_files = 100000, but the standard library has"):
        experiment.inputs(experiment.Settings(n_files=100_000))
