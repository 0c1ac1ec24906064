r"""Latents that all images share count in a minibatch with its share, so that they count once an epoch.

With a latent w of all images and a code :math:`z_i` of each, the negative ELBO of minibatches :math:`B_m` is

.. math:: \sum_m \Big( \pi_m \log\frac{q(w)}{p(w)} + \sum_{i \in B_m} \log\frac{q(z_i)}{p(z_i)\, p(x_i \mid z_i, w)}
          \Big), \qquad \sum_m \pi_m = 1

in expectation over q. Without the shares :math:`\pi_m` the first term would count M times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from posterior_inpainting.inference.density.tracing import is_bookkeeping
from posterior_inpainting.inference.training.examples import Examples

__all__ = ["DivergenceWeight", "is_latent", "shared_latents"]


class DivergenceWeight(Messenger):
    """Context in which latents count with a weight, in model and guide: by default those that all images share.

    Parameters
    ----------
    weight
        What their log densities are multiplied by.
    shared
        Names of those latents; random weights are among them without being named. ``None`` for every latent.

    Examples
    --------
    >>> from posterior_inpainting.models.random_weights.layers import BayesianLinear
    >>> with DivergenceWeight(0.1):
    ...     trace = poutine.trace(BayesianLinear(3, 2)).get_trace(torch.zeros(5, 3))
    >>> trace.nodes["weight"]["scale"]
    0.1
    """

    def __init__(self, weight: float | Tensor, shared: Collection[str] | None = ()):
        super().__init__()
        self.weight, self.shared = weight, None if shared is None else frozenset(shared)

    def _pyro_sample(self, msg: Any) -> None:
        if self._counts(msg):
            msg["scale"] = msg["scale"] * self.weight

    def _counts(self, msg: Any) -> bool:
        if self.shared is None:
            return is_latent(msg)
        return bool(msg["infer"].get("is_global")) or msg["name"] in self.shared


def shared_latents(model: Callable, guide: Callable, examples: Examples) -> frozenset[str]:
    """Return the names of the guide's latents that all images share: their shape is that of no number of images.

    What is observed, and a ``pyro.factor``, counts as of the images.

    Raises
    ------
    ValueError
        If the model subsamples a plate, and so scales its minibatches itself.

    Examples
    --------
    >>> from posterior_inpainting.models.random_weights.layers import bayesian
    >>> from posterior_inpainting.models.supervised import Supervised
    >>> model = Supervised(bayesian(torch.nn.Linear(3, 1)), lambda mean: torch.distributions.Normal(mean[:, 0], 1.0))
    >>> sorted(shared_latents(model, model.guide, Examples(torch.rand(9, 3), torch.rand(9))))
    ['network.bias', 'network.weight']
    """
    if len(examples) == 1:
        return frozenset()
    shapes = []
    with pyro.get_param_store().scope(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for count in (1, 2):
            arguments = examples.first(count)
            drawn = poutine.trace(guide).get_trace(*arguments)
            shapes.append(
                {name: site["value"].shape for name, site in drawn.nodes.items() if is_latent(site)}
            )
        scored = poutine.trace(poutine.replay(model, trace=drawn)).get_trace(*arguments)
    _check_plates(scored)
    one, two = shapes
    return frozenset(name for name, shape in two.items() if one.get(name) == shape)


def is_latent(site: Any) -> bool:
    """Say whether a site of a trace is drawn, rather than observed or set beside the draws."""
    return site["type"] == "sample" and not site["is_observed"] and not is_bookkeeping(site)


def _check_plates(trace: poutine.Trace) -> None:
    for site in trace.nodes.values():
        for frame in site["cond_indep_stack"] if site["type"] == "sample" else ():
            if frame.full_size not in (None, frame.size):
                raise ValueError(
                    f"the plate {frame.name!r} has {frame.size} of {frame.full_size} images; expected a plate of the "
                    "images that the model is called with, since train scales minibatches itself"
                )
