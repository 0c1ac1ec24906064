"""What `train` may ask of a loss: its value for a minibatch, and how minibatches share what is of all images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor

from posterior_inpainting.models.shapes import Mask

__all__ = ["Loss", "PyroLoss", "as_loss", "uniform_weights"]


def uniform_weights(sizes: Sequence[int]) -> Tensor:
    """Return each minibatch's share of the data: 1/M where all have the same size.

    >>> uniform_weights([100, 100, 50])
    tensor([0.4000, 0.4000, 0.2000])
    """
    counts = torch.tensor(list(sizes), dtype=torch.get_default_dtype())
    return counts / counts.sum()


class Loss(ABC):
    """Abstract loss that ``train`` minimises."""

    #: Whether the loss adds up the scored sites of model and guide, as an ELBO does. ``train`` then looks for latents
    #: that all images share, and scales their scores in each minibatch.
    scores_sites: ClassVar[bool] = False

    @abstractmethod
    def differentiable_loss(
        self, model: Any, guide: Any, images: Tensor, masks: Mask | Tensor | None = None
    ) -> Tensor:
        """Return the loss of a minibatch, summed over its images: shape ``()``, with a gradient.

        Parameters
        ----------
        model, guide
            As given to ``train``.
        images
            ``(n, channel, row, column)``, or inputs ``(n, ...)``.
        masks
            A mask each, ``True`` = seen, or the inputs' targets.
        """

    def minibatch_weights(self, sizes: Sequence[int]) -> Tensor:
        """Return the share of each of an epoch's minibatches in what all images have in common; they sum to 1."""
        return uniform_weights(sizes)

    def divergence_weight(self, done: float) -> float:
        """Return what latents count beside what is observed when the part ``done`` of a training is behind: 1."""
        return 1.0

    def state(self) -> dict[str, Tensor]:
        """Return what a loss carries from step to step, by name, for a checkpoint: nothing, unless it says so."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:  # noqa: B027 - most carry nothing
        """Go on from what :meth:`state` returned, or begin anew where it is empty."""


class PyroLoss(Loss):
    """Any ELBO of Pyro's as a loss; ``train`` makes one of an ELBO that it is given.

    Parameters
    ----------
    elbo
        The ELBO; by default with the divergence in closed form where there is one.
    warmup
        Part of the training in which the divergence comes to count: numbers of a code that are worth little while the
        decoder is bad are otherwise given up early, and for good (Sønderby et al. 2016, *Ladder Variational
        Autoencoders*, section 2.3).

    Raises
    ------
    ValueError
        For a part that is not from 0 to 1.

    Examples
    --------
    >>> from pyro.infer import Trace_ELBO
    >>> PyroLoss(Trace_ELBO(num_particles=4)).minibatch_weights([1, 3])
    tensor([0.2500, 0.7500])
    >>> [PyroLoss(warmup=0.2).divergence_weight(done) for done in (0.1, 0.2, 0.9)]
    [0.5, 1.0, 1.0]
    """

    scores_sites = True

    def __init__(self, elbo: ELBO | None = None, *, warmup: float = 0.0):
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup={warmup}; expected a part from 0 to 1")
        self.elbo: Any = TraceMeanField_ELBO() if elbo is None else elbo
        self.warmup = warmup

    def differentiable_loss(
        self, model: Any, guide: Any, images: Tensor, masks: Mask | Tensor | None = None
    ) -> Tensor:
        """Return the negative ELBO of a minibatch."""
        return self.elbo.differentiable_loss(model, guide, images, masks)

    def divergence_weight(self, done: float) -> float:
        """Return what grows from 0 to 1 during the warm-up."""
        return min(1.0, done / self.warmup) if self.warmup else 1.0


def as_loss(loss: Loss | ELBO | None) -> Loss:
    """Return the loss that was given, with Pyro's ELBOs as :class:`PyroLoss`, which is the default too.

    Raises
    ------
    ValueError
        For anything else.

    >>> as_loss("elbo")
    Traceback (most recent call last):
    ValueError: loss is a str; expected an ELBO of Pyro's or a subclass of inference.training.loss.Loss
    """
    if isinstance(loss, Loss):
        return loss
    if loss is None or isinstance(loss, ELBO):
        return PyroLoss(loss)
    raise ValueError(
        f"loss is a {type(loss).__name__}; expected an ELBO of Pyro's or a subclass of inference.training.loss.Loss"
    )
