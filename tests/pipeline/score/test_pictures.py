import warnings
from pathlib import Path

from pipeline.score.histograms import ActivationHistogram
from pipeline.score.pictures import _COLOURS, draw
from pipeline.train.methods import METHODS


def test_every_method_has_a_colour_of_its_own() -> None:
    assert set(_COLOURS) == set(METHODS)
    assert len(set(_COLOURS.values())) == len(METHODS)


def test_pictures_of_a_basis_that_has_no_l0_to_show_are_drawn_without_a_warning(tmp_path: Path) -> None:
    row = {"name": "pca", "method": "pca", "d_in": 6, "d_sae": 6, "sparse": False, "l0": 6.0, "fvu": 0.0, "n_rows": 9}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path, "a site", [row], {"pca": ActivationHistogram.empty(6)}, [])
    assert {path.name for path in tmp_path.iterdir()} == {"frontier.png", "histograms.png"}
