"""The distribution of validity in the digits nets: their first hidden layer scaled, and what follows it.

Source: Black et al. 2022: a direction means the same only in a range of lengths.
"""

from typing import Any

import torch

from pipeline.toy.polytopes.nets import NetSettings, accuracies, code_of, trained, unseen


@torch.no_grad()
def scaling(settings: NetSettings) -> dict[str, Any]:
    """Of nets with and without biases, for each factor: flipped, share of the later layers' code that changes; answers,
    share of the answers that change; kl, of the output, nats: (factors, n_nets) each."""
    x, y = unseen(settings)
    found: dict[str, Any] = {"factors": list(settings.factors)}
    for name, bias in (("with biases", True), ("without biases", False)):
        nets = trained(settings, bias)
        clean = nets.pre_activations(x)
        code, log_p = code_of(clean[1:]), clean[-1].log_softmax(2)
        rows: dict[str, Any] = {"accuracy": accuracies(nets, x, y), "flipped": [], "answers": [], "kl": []}
        for factor in settings.factors:
            out = nets.pre_activations(x, factor)
            log_q = out[-1].log_softmax(2)
            rows["flipped"].append((code_of(out[1:]) != code).double().mean((1, 2)).tolist())
            rows["answers"].append((out[-1].argmax(2) != clean[-1].argmax(2)).double().mean(1).tolist())
            rows["kl"].append((log_p.exp() * (log_p - log_q)).sum(2).double().mean(1).tolist())
        found[name] = rows
    return found
