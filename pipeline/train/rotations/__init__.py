"""Orthogonal rotations of activations, and the solvers that find them."""
