"""A store of a language model's activations, for the toys that look at one."""

from pathlib import Path

from pipeline.extract.config import ExtractConfig
from pipeline.stages import Recipe, Run, run_extract
from pipeline.train.config import TrainConfig
from stores.activations import ActivationStore


def extracted(name: str, config: ExtractConfig, folder: Path) -> ActivationStore:
    """A store of a model's activations, by the ordinary extract stage in the folder."""
    run_extract(Run(Recipe(name=name, extract=config, train=TrainConfig(n_tokens=1)), folder, "cpu"))
    return ActivationStore.open(folder / "extract" / "activations.zarr")
