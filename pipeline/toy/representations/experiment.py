"""What it means that features are directions: decomposability, linearity, compression, and what networks do.

Source: "Neural Network Representations", a text on what is known of them, from concepts of Elhage et al. 2022, "Toy Models of
Superposition". The figures that are named here are that text's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.config import Config
from pipeline.models.files import ModelFiles
from pipeline.toy.representations.compression import compression
from pipeline.toy.representations.computing import by_hand, regimes, sizes
from pipeline.toy.representations.decomposition import decomposition, rows
from pipeline.toy.representations.intensity import intensity
from pipeline.toy.representations.neurons import neurons
from pipeline.toy.representations.qualities import memorised, qualities
from pipeline.toy.representations.relations import relations, token_pairs

Base = Annotated[int, Field(ge=2, le=100)]  # Z of a compression
Units = Annotated[int, Field(ge=1, le=10)]


class Settings(Config):
    """d: of the decomposition, and of the learned rows. model: whose words and neurons are looked at, as extract.model.

    *_seeds: networks of each kind; *_steps: of their training. pictures: of the training of each net.
    """

    d: int = Field(default=64, ge=2)
    n_samples: int = Field(default=1000, ge=1)
    rows_d: int = Field(default=16, ge=2)
    rows_steps: int = Field(default=500, ge=1)
    n_seeds: int = Field(default=100, ge=1)
    model: str = "demo"
    n_permutations: int = Field(default=999, ge=19)
    compression_width: int = Field(default=24, ge=1)
    compression_steps: int = Field(default=1000, ge=1)
    pictures: int = Field(default=300, ge=40)  # fewer may have none of a kind
    pictures_steps: int = Field(default=600, ge=1)
    memorise_steps: int = Field(default=1000, ge=1)
    intensity_units: tuple[Units, ...] = Field(default=(1, 2, 3, 4), min_length=1)
    intensity_steps: int = Field(default=1500, ge=1)
    sizes_base: tuple[Base, ...] = Field(default=(2, 4, 6, 10), min_length=1)
    sizes_steps: int = Field(default=2000, ge=1)
    sizes_seeds: int = Field(default=40, ge=1)
    regimes_base: Base = 4
    regimes_steps: int = Field(default=2000, ge=1)
    width: int = Field(default=32, ge=2)  # of the two hidden layers of the nets that compute


QUICK: dict[str, Any] = {
    "n_seeds": 8, "rows_steps": 200, "n_permutations": 99, "compression_steps": 200, "pictures": 100, "pictures_steps": 200,
    "memorise_steps": 200, "intensity_units": (1, 2), "intensity_steps": 100, "sizes_base": (2, 10), "sizes_steps": 300,
    "sizes_seeds": 2, "regimes_base": 2, "regimes_steps": 500,
}  # fmt: skip


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such model, or one without the words."""
    files = ModelFiles.find(settings.model)
    token_pairs(files)
    return {"model_digest": files.digest, "tokenizer_digest": files.tokenizer_digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    s, widths = settings, (settings.width, settings.width)
    return {
        "memorised": lambda: memorised(s.pictures, s.memorise_steps, s.n_seeds),
        "regimes": lambda: regimes(s.regimes_base, widths, s.regimes_steps, s.n_seeds),
        "qualities": lambda: qualities(s.pictures, s.pictures_steps, s.n_seeds),
        "sizes": lambda: sizes(s.sizes_base, widths, s.sizes_steps, s.sizes_seeds),
        "compression": lambda: compression(s.compression_width, s.compression_steps, s.n_seeds),
        "intensity": lambda: intensity(s.intensity_units, s.intensity_steps, s.n_seeds),
        "relations": lambda: relations(s.model, s.n_permutations),
        "neurons": lambda: neurons(s.model),
        "decomposition": lambda: decomposition(s.d, s.n_samples, s.n_seeds),
        "rows": lambda: rows(s.rows_d, s.rows_steps, s.n_seeds),
        "by_hand": lambda: by_hand((2, 4, 6, 8, 10)),
    }
