"""Dictionary families: one file each. Here is what a family of one's own is made of."""

from pipeline.train.codes import Code, Dense
from pipeline.train.families.base import Family, FamilyConfig, Loss, Now
from pipeline.train.families.penalty import Penalised, PenaltyConfig
from pipeline.train.selections import Largest, LargestMagnitude, LargestOfBatch, Positive, Selection

__all__ = [
    "Code",
    "Dense",
    "Family",
    "FamilyConfig",
    "Largest",
    "LargestMagnitude",
    "LargestOfBatch",
    "Loss",
    "Now",
    "Penalised",
    "PenaltyConfig",
    "Positive",
    "Selection",
]
