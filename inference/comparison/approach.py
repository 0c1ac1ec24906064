"""An approach to one image: which model, fitted by which method, and how many draws of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import describe

__all__ = ["Approach"]


@dataclass(frozen=True)
class Approach:
    """A model with its method: one row of a comparison.

    Parameters
    ----------
    model
        A model of this collection, or a function from an observation to one, for models that are fitted to the
        seen pixels of each image.
    method
        As for ``infer``.
    draws, chains
        As for ``infer``.

    Raises
    ------
    ValueError
        For something else than a model or a method.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact
    >>> from posterior_inpainting.models import GaussianProcess
    >>> Approach(GaussianProcess.fit, Exact(), draws=400, chains=1).draws
    400
    """

    model: ImageModel | Callable[[Observation], ImageModel]
    method: Method
    draws: int = 50
    chains: int = 16

    def __post_init__(self):
        if not callable(self.model):
            raise ValueError(f"model is {describe(self.model)}; expected an ImageModel or a function to one")
        if not isinstance(self.method, Method) or isinstance(self.method, type):
            raise ValueError(
                f"method is {describe(self.method)}; expected one such as ChEES() or Variational()"
            )

    def model_for(self, observation: Observation) -> ImageModel:
        """Return the model of one observation."""
        return self.model if isinstance(self.model, ImageModel) else self.model(observation)
