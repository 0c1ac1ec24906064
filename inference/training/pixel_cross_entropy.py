r"""The loss of a prior and a constraint network: three cross entropies (Dupont & Suresha 2019, section 3.2).

.. math:: L = \mathrm{CE}(f + g) + b \, \mathrm{CE}(g) + a \, \mathrm{CE}(f)

The published weights are a = 0, b = 1, and all three reach both networks: the constraint must predict the pixels alone,
and the prior network learns what is left, so that it is no model of whole images by itself. Here a = 1, b = 0, and the
middle term does not reach f: the prior network is fitted by maximum likelihood, and the constraint to what its law
lacks. On a 4 x 4 Ising field this brings *both* laws nearer to the truth (``tests/benchmarks/pixel_constrained.md``).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.low_precision import low_precision

__all__ = ["PixelCrossEntropy"]


class PixelCrossEntropy(Loss):
    """Loss for ``train(model, model.guide, images, masks=masks, loss=PixelCrossEntropy())``, in nats a batch.

    Parameters
    ----------
    prior
        Weight a of the prior network alone, over all pixels.
    constraint
        Weight b of the constraint network alone.
    joint
        Whether the constrained law's term trains the prior network too, as published.
    over
        ``"hidden"`` counts hidden pixels only in the two terms with the constraint, which are the only ones that
        it is ever asked for; ``"all"`` is published.
    low_precision
        Whether the networks compute in bfloat16; on a processor that has it this takes half the time.

    The published loss is ``PixelCrossEntropy(prior=0, constraint=1, joint=True, over="all")``.

    Raises
    ------
    ValueError
        For another ``over``, or a negative weight.

    Examples
    --------
    >>> import torch
    >>> from posterior_inpainting.inference.training.train import train
    >>> from posterior_inpainting.models import datasets, observations
    >>> from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
    >>> from posterior_inpainting.models.networks.constraint import ConstraintNetwork
    >>> from posterior_inpainting.models.pixel_constrained import PixelConstrained
    >>> digits = (datasets.load("digits")[:200] > 0.5).float()
    >>> _ = torch.manual_seed(0)
    >>> model = PixelConstrained(GatedPixelCNN((1, 8, 8), 2, 4, 2), ConstraintNetwork((1, 8, 8), 2, 4))
    >>> masks = observations.random_masks((1, 8, 8), 20)
    >>> options = {"epochs": 2, "batch_size": 20, "progress": False}
    >>> training = train(model, model.guide, digits, masks=masks, loss=PixelCrossEntropy(), **options)
    >>> training.losses[1] < training.losses[0]
    True
    """

    def __init__(
        self,
        prior: float = 1.0,
        constraint: float = 0.0,
        joint: bool = False,
        over: str = "hidden",
        low_precision: bool = False,
    ):
        if over not in ("hidden", "all"):
            raise ValueError(f"over={over!r}; expected 'hidden' or 'all'")
        if prior < 0 or constraint < 0:
            raise ValueError(f"prior={prior}, constraint={constraint}; expected weights of at least 0")
        self.prior, self.constraint, self.over = prior, constraint, over
        self.joint, self.low_precision = joint, low_precision

    def differentiable_loss(
        self, model: Any, guide: Any, images: Tensor, masks: Tensor | None = None
    ) -> Tensor:
        """Return the loss of a batch; the guide's networks are the model's."""
        with low_precision(images.device, self.low_precision):
            found = model.cross_entropies(images, masks, self.joint)
        loss = self.prior * found["prior"].sum()
        if "constrained" in found:
            both = found["constrained"]
            if self.constraint:
                both = both + self.constraint * found["constraint"]
            count_all = masks is None or self.over == "all"
            loss = loss + (both if count_all else both.masked_fill(masks, 0.0)).sum()  # type: ignore[arg-type]
        return loss + found["divergence"].sum() if "divergence" in found else loss
