"""What is told of training: jumps, beginnings, the source's generator."""

import numpy as np
import pytest
import torch

from pipeline.toy.synthetic.beginnings import OWN, STARTS, Writer, source_of, start
from pipeline.toy.synthetic.data import Data, DataConfig
from pipeline.toy.synthetic.gathered import converged, saved
from pipeline.toy.synthetic.table import jumps, looks, table

STEPS = np.linspace(0, 1, 81)
TINY = Data(DataConfig(d=8, G=16, k=2))


def test_an_even_rise_is_no_jump_and_a_step_is_all_of_one() -> None:
    even = 0.3 + 0.65 * STEPS
    step = np.where(STEPS > 0.5, 0.95, 0.3)
    never = np.full(81, 0.3)
    found = jumps(np.stack([even, step, never], 1), 4)
    assert found["share"] == [pytest.approx(4 / 80, abs=1e-3), 1.0]
    assert found["half"] == [0.5, pytest.approx(0.5125, abs=1e-3)]


def test_nine_tenths_of_a_rise() -> None:
    assert converged((0.0, 0.5, 0.9, 1.0), (0, 10, 20, 30)) == 20


def test_steps_are_saved_to_what_both_reach() -> None:
    """The slower one ends at .5; the other is there after a quarter of its steps."""
    one = {
        "steps": [0, 10, 20, 30, 40],
        "a": {"curve": [0.1, 0.5, 0.7, 0.8, 0.9]},
        "b": {"curve": [0.1, 0.2, 0.3, 0.4, 0.5]},
    }
    numbers = {"begin_random_0": one, "begin_random_1": one}
    assert saved(numbers, "random", "a", "b").value == pytest.approx(0.75)
    assert saved(numbers, "random", "b", "a").value == pytest.approx(-3)
    assert saved(numbers, "random", "a", "a").value == 0


def test_training_is_looked_at_from_the_first_step_to_the_end() -> None:
    assert looks(4000)[0] == 0
    assert looks(4000)[-1] == 4000
    assert len(looks(4000)) == 81


def test_the_table_has_every_cell_and_the_end_of_its_curve_is_its_mmcs() -> None:
    found = table(TINY, (8, 16), (0.1, 1.0), 60, 2048)
    for row in found["cells"]:
        assert len(row) == 2
        for c in row:
            if not c["dead"]:
                assert c["curve"][-1] == pytest.approx(c["mmcs"], abs=1e-3)
    assert all("larger" in c for c in found["cells"][0])


@pytest.mark.parametrize("name", STARTS["random"])
def test_beginnings_are_unit_directions_and_the_encoder_their_transpose(name: str) -> None:
    source = source_of(TINY.rows(0), TINY.F)
    weights = start(name, 0.3, 16, source, 0)
    assert torch.allclose(weights.W_dec.norm(dim=-1), torch.ones(1, 16), atol=1e-5)
    assert torch.equal(weights.W_enc, weights.W_dec.mT) is not name.endswith(OWN)


def test_without_noise_singular_vectors_are_those_of_the_writing_matrix() -> None:
    source = source_of(TINY.rows(0), TINY.F)
    W = start("writer", 0.0, 16, source, 0).W_dec[0].double()
    U = torch.linalg.svd(Writer(TINY.F).writer("").double()).U
    assert torch.allclose((W @ U).abs().amax(1), torch.ones(16, dtype=torch.double), atol=1e-4)
