"""A dictionary is an ordinary module: derivatives go through it."""

import torch

from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import Spec


def test_derivatives_go_through_the_encoder() -> None:
    """Those of x and of the weights, backwards and forwards; without derivatives the code is the same."""
    torch.manual_seed(0)
    made = FeatureDictionary(
        Spec("linear", 8, 20, Site.at("a")), torch.randn(8, 20), torch.randn(20), torch.randn(20, 8), torch.randn(8)
    )
    x, along = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8)
    with torch.inference_mode():
        z = made.encode(x)
    torch.testing.assert_close(made.encode(x), z.clone())
    made.W_enc.requires_grad_()
    made.encode(x).sum().backward()
    torch.testing.assert_close(x.grad, made.W_enc.sum(1).expand(3, 8))
    torch.testing.assert_close(made.W_enc.grad, (x - made.b_dec).sum(0)[:, None].expand(8, 20))
    with torch.no_grad():
        _, tangent = torch.func.jvp(made.encode, (x.detach(),), (along,))
    torch.testing.assert_close(tangent, along @ made.W_enc)
