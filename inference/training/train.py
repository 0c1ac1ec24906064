"""`train`: learn the parameters of a model and its guide from many images, by stochastic ELBO."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO
from torch import Tensor

from posterior_inpainting.inference.training.descent import Descent, Training
from posterior_inpainting.inference.training.examples import Examples
from posterior_inpainting.inference.training.loss import Loss, as_loss
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.inference.training.shared_latents import DivergenceWeight, is_latent, shared_latents
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Objective", "Training", "train"]


def train(
    model: ImageModel | Callable,
    guide: Callable,
    data: Image | Examples,
    *,
    targets: Tensor | None = None,
    masks: Mask | None = None,
    loss: Loss | ELBO | None = None,
    schedule: Schedule = Schedule(),  # noqa: B008 - frozen
    **settings: Any,
) -> Training:
    """Fit every trainable parameter of ``model`` and ``guide`` by maximising the ELBO, and return the losses.

    The parameters are changed in place; what is frozen (``requires_grad_(False)``) stays. Latents that all images
    share, such as random weights, count in a minibatch with its share, so that an epoch's losses add up to minus the
    ELBO.

    Parameters
    ----------
    model, guide
        A model of this collection and its guide, called with ``(images, masks)``.
    data, targets, masks
        As for ``Examples``: images in [0, 1], or inputs of targets; without masks every pixel is seen. Or ``Examples``
        of your own as the data, which make each minibatch as they like.
    loss
        An ELBO of Pyro's, the mean-field one by default, or a ``Loss``.
    schedule, settings
        A ``Schedule``, and fields of it to change: ``epochs=20``, ``batch_size``, ``learning_rate``, ``averaging``,
        ``checkpoint``, ``seed``, ``progress``, ``optimiser``.

    Raises
    ------
    ValueError
        If the data have the wrong shape, masks or targets are given beside ``Examples``, nothing is trainable,
        the ELBO has no gradient, or the loss is not finite.

    Examples
    --------
    >>> from posterior_inpainting.models import VariationalAutoencoder, datasets
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> digits = datasets.load("digits", split="train")
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8)), MaskedEncoder(2, (1, 8, 8)))
    >>> training = train(vae, vae.guide, digits, epochs=3, progress=False)
    >>> training.losses[-1] < training.losses[0]
    True
    """
    schedule, examples = replace(schedule, **settings), _examples(data, targets, masks)
    examples.check(model)
    parameters = _trainable(model, guide, examples)
    if loss is None:
        _check_reparametrised(guide, examples)
    objective = Objective(model, guide, as_loss(loss), examples)
    # The parameters live in the modules, not in Pyro's store.
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        return Descent(parameters, schedule, len(examples), objective.shares, objective.loss).run(objective)


def _examples(data: Image | Examples, targets: Tensor | None, masks: Mask | None) -> Examples:
    if not isinstance(data, Examples):
        return Examples(data, targets, masks)
    if targets is not None or masks is not None:
        raise ValueError("targets or masks are given beside Examples; expected them in the Examples")
    return data


class Objective:
    """The loss of a minibatch in an epoch, latents that all images share being counted with its share.

    Parameters
    ----------
    model, guide, loss, examples
        What is trained, and on what.
    """

    def __init__(self, model: Callable, guide: Callable, loss: Loss, examples: Examples):
        self.model, self.guide, self.loss, self.examples = model, guide, loss, examples
        self.shared = shared_latents(model, guide, examples) if loss.scores_sites else frozenset()

    def shares(self, sizes: Sequence[int]) -> list[float]:
        """Return the shares of an epoch's minibatches."""
        return self.loss.minibatch_weights(sizes).tolist()

    def __call__(self, which: Tensor, share: float, done: float) -> Tensor:
        """Return the loss of the images ``which``, summed over them, at the part ``done`` of a training."""
        arguments = self.examples.minibatch(which)
        every = DivergenceWeight(self.loss.divergence_weight(done), None)
        with warnings.catch_warnings(), DivergenceWeight(share, self.shared), every:
            warnings.filterwarnings("ignore", "Encountered NaN")  # an error of `_descend`, not a warning
            return self.loss.differentiable_loss(self.model, self.guide, *arguments)


def _check_reparametrised(guide: Callable, examples: Examples) -> None:
    """Refuse a discrete site: the gradient of the ELBO goes through the draws of the guide."""
    with pyro.get_param_store().scope(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        sites = poutine.trace(guide).get_trace(*examples.unmasked()).nodes.items()
    for name, site in sites:
        if is_latent(site) and not site["fn"].has_rsample:
            raise ValueError(
                f"the guide's site {name!r} has no reparametrised draws, which the ELBO needs; give the loss that its "
                "model is trained by, such as loss=PixelCrossEntropy()"
            )


def _trainable(model: Callable, guide: Callable, examples: Examples) -> list[Tensor]:
    """Collect the trainable parameters of both, once each, after one call that makes lazy ones."""
    with pyro.get_param_store().scope(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        guide(*examples.unmasked())
    owners = [program.__self__ if isinstance(program, MethodType) else program for program in (model, guide)]
    unique = {id(p): p for owner in owners if isinstance(owner, torch.nn.Module) for p in owner.parameters()}
    parameters: list[Tensor] = [p for p in unique.values() if p.requires_grad]
    if not parameters:
        raise ValueError("neither the model nor the guide has a trainable parameter; is the decoder frozen?")
    return parameters
