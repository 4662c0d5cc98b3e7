from pipeline.score.pictures import _COLOURS
from pipeline.train.methods import METHODS


def test_every_method_has_a_colour_of_its_own() -> None:
    assert set(_COLOURS) == set(METHODS)
    assert len(set(_COLOURS.values())) == len(METHODS)
