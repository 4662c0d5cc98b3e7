"""What is called with other types or shapes than it says fails in the tests."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from pipeline.models.mlp import MLP
from pipeline.train.rotations.solvers import Solver, SolverConfig
from stores.dictionary import FeatureDictionary
from stores.int8 import encode
from stores.moments import Moments
from stores.spec import Spec


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
