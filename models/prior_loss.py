"""The prior loss of Yeh et al. 2017: a discriminator's judgement of what is decoded, as a factor of the density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PriorLoss"]


@dataclass(frozen=True, eq=False)
class PriorLoss:
    """Yeh's prior loss (equation 5): the density is multiplied by exp(-``weight`` * prior loss of the completion).

    Parameters
    ----------
    discriminator
        Module with ``image_shape`` and ``prior_loss(image)``: Yeh's log(1 - D) or minus a critic, image by image.
    weight
        The paper's lambda stands beside an error that is not divided by the noise: under ``laplace`` it is
        ``2**0.5 * lambda / noise`` here.

    Raises
    ------
    ValueError
        For a weight that is not positive.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import Discriminator
    >>> PriorLoss(Discriminator((1, 8, 8), widths=(4,)), 0.04).weight
    0.04
    """

    discriminator: Any
    weight: float = 1.0

    def __post_init__(self):
        if self.weight <= 0:
            raise ValueError(f"weight={self.weight} of the prior loss; expected a positive number")
