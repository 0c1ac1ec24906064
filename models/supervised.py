r"""Regression and classification by a network with random weights.

Blundell et al. 2015, section 2. With inputs :math:`x_i`, targets :math:`y_i` and a network f of weights w,

.. math:: w \sim p(w), \qquad y_i \mid x_i, w \sim p(y_i \mid f_w(x_i)).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor

from posterior_inpainting.models.random_weights.given_weights import Weights
from posterior_inpainting.models.random_weights.layers import BayesianModule

__all__ = ["Supervised"]


class Supervised(PyroModule):
    """Targets given inputs: the law of every target depends on the output of a network with random weights.

    Train it with ``train(model, model.guide, inputs, targets=targets, loss=BayesByBackprop())``.

    Parameters
    ----------
    network
        The network, as :func:`~posterior_inpainting.models.random_weights.layers.bayesian` makes it.
    law
        From outputs ``(*draws, n, ...)`` to the distribution of targets, of batch shape ``(*draws, n)``.

    Examples
    --------
    >>> import pyro.distributions as dist
    >>> import torch
    >>> from posterior_inpainting.models.random_weights.layers import bayesian
    >>> network = bayesian(torch.nn.Linear(4, 3))
    >>> classifier = Supervised(network, lambda logits: dist.Categorical(logits=logits))
    >>> tuple(classifier.predict(torch.zeros(5, 4), draws=10).probs.shape)
    (10, 5, 3)
    """

    def __init__(self, network: BayesianModule, law: Callable[[Tensor], Any]):
        with pyro.settings.context(module_local_params=True):
            super().__init__()
        self.network = network
        self.law = law

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
        """Draw one network, run all inputs through it, score or draw their targets."""
        outputs = self.network(inputs)
        with pyro.plate("data", len(inputs), dim=-1):
            return pyro.sample("target", self.law(outputs), obs=targets)

    def guide(self, inputs: Tensor | None = None, targets: Tensor | None = None) -> Weights:
        """Draw the weights from their learnt Gaussians."""
        return self.network.guide()

    def predict(self, inputs: Tensor, draws: int = 50, chunk: int | None = 10) -> Any:
        """Return the law of the targets under each of ``draws`` networks: batch shape ``(draws, n)``.

        The average of its probabilities over the first dim is the ensemble's prediction.
        """
        weights = self.network.draw_weights(draws)
        return self.law(self.network.forward_with(weights, inputs, chunk=chunk))
