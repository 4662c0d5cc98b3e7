"""Jobs of a recipe's stages, on Slurm or as processes of this machine. State is in the run folder, none in a scheduler."""
