"""What operators.py launches on CUDA, by the operators' names and arguments."""

from pipeline.train.triton.bag import bag
from pipeline.train.triton.dots import dots
from pipeline.train.triton.encode import encode
from pipeline.train.triton.update import sparse_update, update

__all__ = ["bag", "dots", "encode", "sparse_update", "update"]
