"""The settings of a search for rotations."""

from typing import Literal

from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.rotations.objectives import OBJECTIVES
from pipeline.train.rotations.orthogonal import RETRACTIONS

Side = Literal["in", "out", "both"]


class SearchConfig(MethodConfig):
    """Settings of every search for rotations: MSP (matching, stretching and projection, Zhai et al. 2020), then a polish of
    the objective itself."""

    objective: str = Field(
        default="log",
        pattern=f"^({'|'.join(OBJECTIVES)})$",
        description=f"What is minimised, one of {', '.join(OBJECTIVES)}; l4 is MSP's own, and takes all steps "
        "for it. Sources: pipeline/train/rotations/objectives.py.",
    )
    epsilon: float = Field(
        default=0.1, gt=0, description="Where rational and log bend, in units of the entries' root mean square."
    )
    # With a large one log is smooth, and leads to minima that a small one alone does not find: two planted rotations of
    # d = 128 come out of 32 inputs in 400 steps, without it of 512 or more.
    epsilon_start: float = Field(
        default=3.0, gt=0, description="The polish begins with this epsilon, which falls to epsilon geometrically."
    )
    n_iterations: int = Field(default=25, ge=1, description="Of MSP, each on an equal part of its steps' batches.")
    msp: float = Field(
        default=0.5, ge=0, le=1, description="First part of the steps (0 to 1), for MSP; the rest polish."
    )
    retraction: str = Field(
        default="cayley",
        pattern=f"^({'|'.join(RETRACTIONS)})$",
        description=f"How a step of the polish becomes a rotation, one of {', '.join(RETRACTIONS)}.",
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Of the polish: how far an entry of the antisymmetric matrix goes in the first step; it falls to 0. By "
        "default 0.3 / √d.",
    )
    seed: int = Field(default=0, ge=0, description="Of random rotations, and of the columns drawn.")


class SolverConfig(SearchConfig):
    """Settings of a search for the rotations in which Jacobians are sparse."""

    side: Side = Field(
        default="both", description='What may turn: the axes of the inputs ("in"), of the outputs ("out"), or "both".'
    )
    equal_inputs: bool = Field(
        default=False,
        description="Whether each input's Jacobian is divided by its norm, which no rotation changes, so that L4 does not see "
        "the largest ones alone.",
    )
    columns: int = Field(
        default=0,
        ge=0,
        description="How many of the rotated Jacobian's columns are drawn for each input, an estimate without bias; 0: all.",
    )

    def check_columns(self, d_in: int) -> None:
        """Raises ValueError: columns that cannot be drawn, or not without bias."""
        if self.columns > d_in:
            raise ValueError(f"columns = {self.columns} are more than the {d_in} there are")
        if self.columns and not OBJECTIVES[self.objective].separable:
            raise ValueError(f"objective {self.objective!r} of sampled columns is biased: set columns = 0")
