"""toy: small models where the truth is known."""
