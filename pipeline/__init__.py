"""unmix: extract activations, train feature dictionaries on them, score the dictionaries.

GNU OpenMP reads GOMP_SPINCOUNT when PyTorch is imported. Unless the environment says how threads wait for each other, they
spin for some microseconds and then sleep: by default they spin a hundred times as long, and on a processor that others use
too a thread that spins holds the core on which the one that it waits for could run. Threads that sleep at once take a fifth
longer where they have the processor to themselves.
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "3000"
