r"""Bayes by Backprop: the ELBO of a model with random weights, shared out among minibatches.

Blundell et al. 2015, *Weight Uncertainty in Neural Networks*, equations 8 and 9. Minibatch i of M has the cost

.. math:: F_i = \pi_i \, \mathrm{KL}[q(w) \,\|\, p(w)] - E_q \log p(D_i \mid w), \qquad \sum_i \pi_i = 1,

so that an epoch's costs sum to the negative ELBO of all data. With :math:`\pi_i = 1/M` each is an unbiased estimate
of its M-th part; :math:`\pi_i = 2^{M-i} / (2^M - 1)` lets the prior speak first and the data later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.util import torch_item
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import kl_divergence

from posterior_inpainting.inference.training.loss import Loss, uniform_weights
from posterior_inpainting.inference.training.shared_latents import DivergenceWeight

__all__ = ["BayesByBackprop", "DivergenceWeight", "geometric_weights", "uniform_weights"]


def geometric_weights(sizes: Sequence[int]) -> Tensor:
    r"""Return :math:`2^{M-i} / (2^M - 1)` for the minibatches i = 1..M, whatever their sizes.

    Computed as :math:`2^{-i} / (1 - 2^{-M})`, since the numerator itself overflows past M = 1023.

    >>> geometric_weights([100, 100, 50])
    tensor([0.5714, 0.2857, 0.1429])
    """
    batches = len(sizes)
    order = torch.arange(1, batches + 1, dtype=torch.float64)
    return (2.0**-order / (1 - 2.0**-batches)).to(torch.get_default_dtype())


_WEIGHTS: dict[str, Callable[[Sequence[int]], Tensor]] = {
    "uniform": uniform_weights,
    "geometric": geometric_weights,
}


class BayesByBackprop(TraceMeanField_ELBO, Loss):
    r"""The loss of models with random weights, for ``train(..., loss=BayesByBackprop())`` and Pyro's ``SVI``.

    The divergence is in closed form where there is one. Elsewhere, as for the scale mixture, the prior is scored
    at the draw and the entropy of the guide is exact. That has the gradient of Blundell's
    :math:`\log q(w) - \log p(w)` to the last digit, because :math:`\log q(\mu + \sigma\epsilon)` depends on the
    parameters through :math:`-\log\sigma` alone; it is only cheaper and less noisy in value.

    Parameters
    ----------
    weights
        ``"uniform"`` (1/M) or ``"geometric"`` (:math:`2^{M-i} / (2^M - 1)`), the divergence's share in minibatch i.
        ``train`` applies them; under ``SVI`` the whole divergence counts, unless a step is made inside
        :class:`DivergenceWeight`.
    particles
        Draws of the weights for each estimate.

    Raises
    ------
    ValueError
        For unknown weights.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> from posterior_inpainting.inference.training.train import train
    >>> from posterior_inpainting.models.random_weights.layers import bayesian
    >>> from posterior_inpainting.models.supervised import Supervised
    >>> x = torch.linspace(-1, 1, 100)[:, None]
    >>> network = bayesian(torch.nn.Linear(1, 1))
    >>> model = Supervised(network, lambda mean: dist.Normal(mean, 0.1).to_event(1))
    >>> training = train(
    ...     model, model.guide, x, targets=2 * x, loss=BayesByBackprop("geometric"),
    ...     epochs=60, batch_size=20, learning_rate=0.05, progress=False,
    ... )
    >>> 1.8 < network.mean.weight.item() < 2.2
    True
    """

    scores_sites = True

    def __init__(self, weights: str = "uniform", particles: int = 1):
        if weights not in _WEIGHTS:
            raise ValueError(f"weights={weights!r}; expected one of {', '.join(_WEIGHTS)}")
        super().__init__(num_particles=particles)
        self.weights = weights

    def minibatch_weights(self, sizes: Sequence[int]) -> Tensor:
        """Return the divergence's share in each of an epoch's minibatches, given their sizes; they sum to 1."""
        return _WEIGHTS[self.weights](sizes)

    def _get_trace(self, model, guide, args, kwargs):
        # Unlike the base class, scores no site twice: that of all weights would cost as much as the network.
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        replayed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
        return prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)

    def _differentiable_loss_particle(self, model_trace, guide_trace):
        elbo = torch.zeros(())
        for name, site in model_trace.nodes.items():
            if site["type"] != "sample" or site["infer"].get("_deterministic"):
                continue
            if site["is_observed"]:
                elbo = elbo + _total(site, site["fn"].log_prob(site["value"]))
            else:
                elbo = elbo - _divergence(guide_trace.nodes[name], site)
        return -torch_item(elbo), -elbo


def _divergence(guide_site: dict, model_site: dict) -> Tensor:
    """KL[q || p] of a site: exact if it can be, else an unbiased estimate from the site's draw."""
    q, p = guide_site["fn"], model_site["fn"]
    try:
        return _total(guide_site, kl_divergence(q, p))
    except NotImplementedError:
        pass
    value = guide_site["value"]
    try:
        negative_entropy = -q.entropy()
    except NotImplementedError:
        negative_entropy = q.log_prob(value)
    return _total(guide_site, negative_entropy) - _total(model_site, p.log_prob(value))


def _total(site: dict, log_prob: Tensor) -> Tensor:
    return scale_and_mask(log_prob, scale=site["scale"], mask=site["mask"]).sum()
