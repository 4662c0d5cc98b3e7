"""Rotations of a small net's layers."""
