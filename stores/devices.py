"""Which device a thread works on: each thread has a current CUDA device of its own, which is the first until it says so."""

import torch


def with_index(device: str | torch.device) -> torch.device:
    """The device; "cuda" is this thread's current one, by its index, so that it is the same one in every thread."""
    found = torch.device(device)
    return torch.device("cuda", torch.cuda.current_device()) if found == torch.device("cuda") else found


def use(device: str | torch.device) -> None:
    """Make a CUDA device this thread's current one: streams, pinned memory and Triton's kernels go by that."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
