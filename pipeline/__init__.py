"""unmix: extract activations, train feature dictionaries on them, score the dictionaries.

OpenMP reads OMP_WAIT_POLICY when PyTorch is imported. Unless the environment says how its threads wait for each other, they
sleep: by default they spin, and on a processor that others use too a thread that spins holds the core on which the one that
it waits for could run (scripts/bench_neighbour.py).
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
