r"""`sample_weights`: draws of a network's weights from their posterior given many images, by minibatches.

With a prior p(theta), the loss :math:`L_i(\theta)` of image i and N images, what is drawn from is

.. math:: p(\theta \mid D) \propto p(\theta)\, \exp\Big( -\sum_{i=1}^N L_i(\theta) \Big),

up to the bias of steps that nothing accepts (:mod:`~posterior_inpainting.inference.training.weight_kernels`). Of a
variational autoencoder the loss is the negative bound on log p(x), with the encoder as it is, and the posterior is
that bound's. There are as many modes as there are networks; a walk sees one, or one a cycle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.cycles import Cycles
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.loss import Loss, as_loss
from posterior_inpainting.inference.training.train import Objective
from posterior_inpainting.inference.training.weight_kernels import SGHMC, WeightKernel
from posterior_inpainting.models.random_weights.layers import Prior
from posterior_inpainting.models.random_weights.weight_laws import WeightSamples
from posterior_inpainting.models.random_weights.weight_priors import FanIn, law_of_weights

__all__ = ["WeightWalk", "sample_weights"]


def sample_weights(
    model: Callable,
    guide: Callable,
    data: Tensor | Examples,
    *,
    network: nn.Module,
    prior: Prior | None = None,
    kernel: WeightKernel | None = None,
    cycles: Cycles | None = None,
    loss: Loss | ELBO | None = None,
) -> WeightSamples:
    """Draw the weights of a trained network by stochastic gradient Langevin or Hamiltonian dynamics.

    Biased: by the size of its steps and by the noise of its minibatches. Where a mean of the posterior is wanted to
    the last digit there are MALA and HMC over a small network.

    Parameters
    ----------
    model, guide
        As for ``train``; their weights are as they were afterwards.
    data
        Images in [0, 1], or ``Examples``.
    network
        The part of the model whose weights are random, such as ``vae.decoder``; the walk begins at its weights.
    prior
        Law of a single weight; by default ``FanIn(gain=3.0)``, as for ``BayesianDecoder``.
    kernel
        ``SGHMC()`` by default, or ``SGLD()``.
    cycles
        How long, how fast, and what is kept.
    loss
        As for ``train``: by default the mean-field ELBO.

    Returns
    -------
    WeightSamples
        Of the network, ``cycles.cycles * cycles.samples`` of them, in the order in which they were drawn.

    Raises
    ------
    ValueError
        If the data do not fit the model, its loss does not depend on a weight of the network, or the walk leaves the
        numbers, which smaller steps mend.

    Examples
    --------
    >>> from posterior_inpainting.models import VariationalAutoencoder, WeightDraws, datasets
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> digits = datasets.load("digits", split="train")
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> cycles = Cycles(cycles=2, epochs=1, samples=2, progress=False)
    >>> law = sample_weights(vae, vae.guide, digits, network=vae.decoder, cycles=cycles)
    >>> law.count, len(WeightDraws(law, count=4, encoder=vae.encoder).networks)
    (4, 4)
    """
    cycles = Cycles() if cycles is None else cycles
    walk = WeightWalk(model, guide, data, network=network, prior=prior, loss=loss)
    found = list(walk.snapshots(SGHMC() if kernel is None else kernel, cycles))
    return WeightSamples(
        network, dict(zip(walk.paths, map(torch.stack, zip(*found, strict=True)), strict=True))
    )


class WeightWalk:
    """A walk of a network's weights over their posterior: where it goes, and copies of it on the way.

    Parameters
    ----------
    model, guide, data, network, prior, loss
        As for :func:`sample_weights`.

    Attributes
    ----------
    paths
        Of the random parameters, in the order of what :meth:`snapshots` yields.
    """

    def __init__(
        self,
        model: Any,
        guide: Callable,
        data: Tensor | Examples,
        *,
        network: nn.Module,
        prior: Prior | None = None,
        loss: Loss | ELBO | None = None,
    ):
        examples = data if isinstance(data, Examples) else Examples(data)
        examples.check(model)
        self.count = len(examples)
        self.objective = Objective(model, guide, as_loss(loss), examples)
        self.prior = FanIn(gain=3.0) if prior is None else prior
        named = dict(network.named_parameters())
        self.paths, self.parameters = list(named), list(named.values())

    def snapshots(self, kernel: WeightKernel, cycles: Cycles) -> Iterator[list[Tensor]]:
        """Yield copies of the weights where the schedule keeps them; the network is as it was afterwards."""
        sizes = [
            min(cycles.batch_size, self.count - first) for first in range(0, self.count, cycles.batch_size)
        ]
        steps = cycles.epochs * len(sizes)
        kept = set(cycles.kept(steps))
        weights = [parameter.detach() for parameter in self.parameters]
        before, trained = [w.clone() for w in weights], [p.requires_grad for p in self.parameters]
        streams = Streams(cycles.seed)
        noise = streams.generator("noise", device=weights[0].device)
        state = kernel.start(weights)
        bar = progress_bar(
            total=cycles.cycles * steps, desc="weights", disable=not cycles.progress, unit="step"
        )
        try:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
            with bar, streams.seeded("minibatches"), pyro.get_param_store().scope():
                for cycle in range(cycles.cycles):
                    for step, which in enumerate(self._minibatches(cycles)):
                        exploring = cycles.explores(step, steps)
                        gradient = self.gradient(which)
                        if exploring:
                            state = kernel.learnt(state, gradient)
                        heat = 0.0 if exploring else cycles.temperature / self.count
                        size = cycles.size(step, steps)
                        state = kernel.step(state, weights, gradient, size, heat, noise)
                        bar.update()
                        if step in kept:
                            yield self._copies(weights, cycle, cycles)
        finally:
            for parameter, value, flag in zip(self.parameters, before, trained, strict=True):
                parameter.detach().copy_(value)
                parameter.requires_grad_(flag)

    def gradient(self, which: Tensor) -> list[Tensor]:
        """Return the estimate of the gradient of U / N by the images ``which``, a tensor a parameter."""
        share = len(which) / self.count
        with pyro.validation_enabled(False):
            loss = self.objective(which, share, 1.0) / len(which)
        if not loss.requires_grad:
            raise ValueError(
                "the loss has no gradient in the network's weights; expected a part of the model"
            )
        prior = sum(
            law_of_weights(self.prior, path, parameter.detach()).log_prob(parameter).sum()
            for path, parameter in zip(self.paths, self.parameters, strict=True)
        )
        slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        # A weight that the images say nothing of would walk over its prior, unseen.
        for path, slope in zip(self.paths, slopes, strict=True):
            if slope is None:
                raise ValueError(
                    f"the loss does not depend on {path!r}; expected a part of the model as the network"
                )
        own = torch.autograd.grad(-prior / self.count, self.parameters)
        return [slope + of_prior for slope, of_prior in zip(slopes, own, strict=True)]

    def _minibatches(self, cycles: Cycles) -> Iterator[Tensor]:
        for _ in range(cycles.epochs):
            yield from torch.randperm(self.count, device=self.parameters[0].device).split(cycles.batch_size)

    @staticmethod
    def _copies(weights: list[Tensor], cycle: int, cycles: Cycles) -> list[Tensor]:
        copies = [w.clone() for w in weights]
        if not all(math.isfinite(float(w.sum())) for w in copies):
            raise ValueError(
                f"the weights are not finite in cycle {cycle + 1}; try a learning rate below {cycles.learning_rate}"
            )
        return copies
