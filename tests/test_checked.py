"""What is called with other types or shapes than it says fails in the tests."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from pipeline.models.mlp import MLP
from pipeline.train.rotations.solvers import Solver, SolverConfig
from stores.description import to_stored
from stores.dictionary import FeatureDictionary
from stores.int8 import encode
from stores.moments import Moments
from stores.order import permutation
from stores.spec import Spec
from tests.checked import once


def test_an_argument_of_another_rank_or_type_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="Float"):
        encode(torch.zeros(3, dtype=torch.int64))
    with pytest.raises(TypeCheckError, match="path"):
        FeatureDictionary.load(8)  # pyright: ignore[reportArgumentType]


def test_sizes_that_are_named_alike_have_to_be_alike() -> None:
    with pytest.raises(TypeCheckError, match="d_sae"):
        FeatureDictionary(
            Spec("standard", 8, 20), torch.zeros(8, 20), torch.zeros(21), torch.zeros(20, 8), torch.zeros(8)
        )
    zeros = torch.zeros
    with pytest.raises(TypeCheckError, match="d_mlp"):
        MLP(zeros(4, 6), zeros(5), zeros(6, 4), zeros(4), zeros(4), zeros(4))
    with pytest.raises(TypeCheckError, match="d_in"):
        Solver(SolverConfig(), zeros(4, 5), torch.eye(5))
    with pytest.raises(TypeCheckError, match="max_abs"):
        Moments(5, np.zeros(4), np.zeros(4), np.zeros(3), 1.0, 3.0)


def test_kinds_of_arguments_that_passed_say_nothing_of_others() -> None:
    for _ in range(2):
        to_stored(np.zeros((3, 4)), "float32")
        with pytest.raises(TypeCheckError, match="n d"):
            to_stored(np.zeros(3), "float32")
        encode(torch.zeros(3, 4))
        with pytest.raises(TypeCheckError, match="Float"):
            encode(torch.zeros(3, 4, dtype=torch.int64))


def test_only_what_has_no_shape_that_depends_on_a_number_passes_unchecked() -> None:
    """What passed before says nothing of lists, nor of what has {n} rows."""
    checks: list[object] = []
    function = once(lambda *_, **__: None, lambda *arguments, **__: checks.append(arguments))
    for x in (1, 2, torch.zeros(2), torch.ones(2), torch.zeros(3), torch.zeros(2).double(), [1], [1]):
        function(x)
    assert len(checks) == 6
    function(x=1)
    function(y=1)
    assert len(checks) == 8
    assert permutation.__code__.co_name == "wrapped_fn"
    assert encode.__code__.co_name == "call"
