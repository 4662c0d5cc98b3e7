"""The kernels of a training step on a CUDA device, in Triton. They are called as operators: pipeline/train/operators.py says
what each makes of tensors of which shapes. Here signatures name no shapes: what checks them in the tests wraps functions, and
Triton compiles only plain ones.
"""
