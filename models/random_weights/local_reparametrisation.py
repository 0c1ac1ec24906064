r"""Local reparametrisation: the noise of random weights drawn at the units, anew for each row of a batch.

Kingma, Salimans & Welling 2015, *Variational Dropout and the Local Reparameterization Trick*, equation 6. For a
linear layer with weights :math:`w_{jk} \sim N(\mu_{jk}, \sigma_{jk}^2)` and input a,

.. math:: b_k = \sum_j a_j w_{jk} \;\Longrightarrow\;
          b_k \sim N\Big(\sum_j a_j \mu_{jk}, \; \sum_j a_j^2 \sigma_{jk}^2\Big).

The bound is the same and its gradient less noisy, but no two rows see the same weights: there is no network to
speak of, so that it serves training alone. In a convolution it would give every pixel a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

__all__ = ["check_local", "noise_at_units"]


def check_local(network: nn.Module, posterior: dict[str, Normal], prior: Callable) -> None:
    """Check that the noise of all random parameters can be drawn at units, and their divergence without them.

    Raises
    ------
    ValueError
        For a parameter outside a linear layer, or a prior whose divergence has no closed form.
    """
    linear = {id(p) for layer in _linear_layers(network) for p in layer.parameters(recurse=False)}
    for path, law in posterior.items():
        if id(network.get_parameter(path)) not in linear:
            raise ValueError(
                f"{path!r} is not a weight of a linear layer: its noise cannot be drawn at the units without "
                "another network for each pixel; use local_reparametrisation=False"
            )
        try:
            kl_divergence(law, prior(path))
        except NotImplementedError:
            raise ValueError(
                "local reparametrisation needs a prior whose divergence has a closed form, such as Gaussian()"
            ) from None


@contextmanager
def noise_at_units(network: nn.Module, posterior: dict[str, Normal]) -> Iterator[None]:
    """Make the linear layers of a network, which is at the posterior's mean, add the noise of their weights."""
    scales = {id(network.get_parameter(path)): law.scale for path, law in posterior.items()}

    def add_noise(layer: nn.Linear, inputs: tuple, output: Tensor) -> Tensor:
        """Add to a layer's output the noise that its random weights make there."""
        # The root has no slope at 0, which is where a row of zeros into a layer without bias is.
        variance = output.new_full((), 1e-20)
        if id(layer.weight) in scales:
            variance = variance + F.linear(inputs[0].square(), scales[id(layer.weight)].square())
        if id(layer.bias) in scales:
            variance = variance + scales[id(layer.bias)].square()
        return output + variance.sqrt() * torch.randn_like(output)

    hooks = [layer.register_forward_hook(add_noise) for layer in _linear_layers(network)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if type(layer) is nn.Linear]
