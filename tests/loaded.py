"""What the processes of tests/dying.py are forked from: all that a stage would load, and no thread."""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import botocore.session  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import s3fs  # noqa: F401
import sklearn.decomposition  # noqa: F401
import torch
import transformers.models.gpt2.modeling_gpt2  # noqa: F401
import zarr  # noqa: F401

import pipeline.cli
import pipeline.stages  # noqa: F401

torch.set_num_threads(1)
os.fsync = lambda descriptor: None  # as in tests/conftest.py
