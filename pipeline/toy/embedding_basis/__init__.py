"""The singular vectors of a language model's embedding as a basis of its residual stream."""
