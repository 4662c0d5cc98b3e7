"""Orthogonal rotations of activations, and the solvers that find them."""

from pipeline.train.rotations.module import Rotation, rotate

__all__ = ["Rotation", "rotate"]
