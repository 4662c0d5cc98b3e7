import pytest
import torch

from pipeline.train.kernels import fast_dtype, select_positive, select_topk, sparse_autoencode


@pytest.mark.parametrize("kind", ["topk", "positive"])
def test_sparse_forward_and_gradients_are_the_dense_ones(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    b, d, h, k = 33, 10, 40, 5
    x, target = torch.randn(2, b, d, generator=generator)
    make = lambda: [  # noqa: E731
        t.clone().requires_grad_()
        for t in (
            torch.randn(h, d, generator=torch.Generator().manual_seed(1)),
            torch.randn(h, generator=torch.Generator().manual_seed(2)) - 3,
            torch.randn(h, d, generator=torch.Generator().manual_seed(3)),
        )
    ]

    def loss_of(x_hat: torch.Tensor, l1: torch.Tensor) -> torch.Tensor:
        return (x_hat - target).square().sum() + 0.3 * l1

    W_enc, b_enc, W_dec = dense = make()
    pre = x @ W_enc.T + b_enc
    if kind == "topk":
        values, indices = pre.topk(k, dim=-1)
        z = torch.zeros_like(pre).scatter(-1, indices, values.relu())
    else:
        z = pre.relu()
    loss_of(z @ W_dec, (z * W_dec.norm(dim=-1)).sum()).backward()

    sparse = make()
    x_hat, code = sparse_autoencode(x, *sparse, select_topk(k) if kind == "topk" else select_positive, torch.float32)
    loss_of(x_hat, (code.values * sparse[2].norm(dim=-1)[code.indices]).sum()).backward()

    torch.testing.assert_close(x_hat, z @ W_dec, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(sparse, dense, strict=True):
        assert ours.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)


def test_rows_without_an_active_feature_are_zero() -> None:
    W = torch.ones(3, 2)
    x_hat, code = sparse_autoencode(
        torch.tensor([[1.0, 1.0], [-1.0, -1.0]]), W, torch.zeros(3), W, select_positive, torch.float32
    )
    assert x_hat.tolist() == [[6.0, 6.0], [0.0, 0.0]]
    assert code.offsets.tolist() == [0, 3, 3]


def test_the_probe_names_a_dtype() -> None:
    assert fast_dtype("cpu") in (torch.float32, torch.bfloat16)
