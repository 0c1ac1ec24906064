"""What a method is given to solve, of a model and what was seen of an image."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import check_image, describe

__all__ = ["problem_of", "stacked"]


def problem_of(model: ImageModel, observation: Observation | Measurement) -> Problem:
    """Return a model with its arguments; under an instrument its guide only where that is the exact posterior.

    Raises
    ------
    ValueError
        For something else than a model or an observation, one of another shape, or a measurement of a model that takes
        none.

    Examples
    --------
    >>> from posterior_inpainting.models import PixelConstrained, datasets, operators, pretrained
    >>> image = datasets.load("fashion-mnist-samples")[0]
    >>> small = operators.average(image.shape, 4)
    >>> model = PixelConstrained(**pretrained.load_parts("fashion-mnist-pixels-16"))
    >>> problem_of(model, Measurement(small, small(image)))
    Traceback (most recent call last):
    ...
    ValueError: PixelConstrained is of pixels that are seen or not, and takes no measurement; ...
    """
    if not isinstance(model, ImageModel):
        raise ValueError(f"model is {describe(model)}; expected an ImageModel")
    if not isinstance(observation, Observation | Measurement):
        raise ValueError(
            f"observation is {describe(observation)}; expected Observation(image, mask) or a Measurement"
        )
    check_image(observation.mask.float(), model.image_shape)
    if isinstance(observation, Observation):
        return Problem(model, observation.arguments, guide=model.guide)
    if not model.takes_measurements:
        raise ValueError(
            f"{type(model).__name__} is of pixels that are seen or not, and takes no measurement; expected a model "
            "over codes, weights or fields"
        )
    # An encoder has seen images behind masks, and nothing else.
    return Problem(model, observation.arguments, guide=model.guide if model.guide_is_exact else None)


def stacked(observations: Sequence[Observation | Measurement]) -> tuple:
    """Return what a model is called with for all of several observations at once.

    Raises
    ------
    ValueError
        For measurements that are not by one operator with one noise, or masks among them.
    """
    measured = [one for one in observations if isinstance(one, Measurement)]
    if not measured:
        masked = [one.arguments for one in observations]
        return tuple(torch.stack(parts) for parts in zip(*masked, strict=True))
    kinds = {(id(one.operator), one.noise) for one in measured}
    if len(measured) < len(observations) or len(kinds) > 1:
        raise ValueError(
            f"{len(observations)} observations of {len(kinds)} instruments, {len(observations) - len(measured)} behind "
            "masks; expected masks alone, or one operator with one noise"
        )
    return torch.stack([one.values for one in measured]), measured[0].arguments[1]
