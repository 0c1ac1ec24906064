"""An approach to one image: which model, fitted by which method, and how many draws of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from posterior_inpainting.inference.bars import shown
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.drawing_in_windows import infer_in_windows, side_of_pieces
from posterior_inpainting.inference.execution import timed_from
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import describe

__all__ = ["Approach", "ModelMaker"]


class ModelMaker(ABC):
    """Makes the model of an approach where it is first needed, so that an approach can be named and sent unloaded."""

    #: Whether each image has a model of its own; otherwise one model serves all of them.
    for_each_image: bool = True

    @abstractmethod
    def __call__(self, observation: Observation) -> ImageModel:
        """Return the model of one observation."""


@dataclass(frozen=True)
class Approach:
    """A model with its method and the number of draws: one row of a comparison, and what completes one image.

    Parameters
    ----------
    model
        A model of this collection, or a function from an observation to one, for models that are fitted to the
        seen pixels of each image.
    method
        As for ``infer``.
    draws, chains
        As for ``infer``.
    margin, least
        Where the model knows nothing further away than ``margin`` pixels, holes are completed in windows; as for
        ``infer_in_windows``. ``None`` for whole images.

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
    margin: int | None = None
    least: int = 1

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

    @property
    def for_each_image(self) -> bool:
        """Whether each image has a model of its own."""
        if isinstance(self.model, ModelMaker):
            return self.model.for_each_image
        return not isinstance(self.model, ImageModel)

    def made_for(self, observation: Observation) -> Approach:
        """Return the same approach with the model of one observation."""
        return replace(self, model=self.model_for(observation))

    def complete(
        self, observation: Observation, *, seed: int = 0, progress: bool = True, budget: str | None = None
    ):
        """Return what ``infer`` does, or ``infer_in_windows`` where there is a margin; its seconds count the fit.

        Raises ``ValueError`` for a ``budget``, as for ``infer``, where there is a margin: every window needs its draws.
        """
        start = time.perf_counter()
        settings: dict[str, Any] = {
            "draws": self.draws,
            "chains": self.chains,
            "seed": seed,
            "progress": progress,
        }
        if self.margin is None:
            with shown(progress):
                model = self.model_for(observation)
            drawn = infer(model, observation, self.method, budget=budget, **settings)
        elif budget is not None:
            raise ValueError(
                f"budget={budget!r}: holes are drawn in windows, which all need it; take fewer draws"
            )
        else:
            drawn = infer_in_windows(
                self.model_for,
                observation,
                self.method,
                margin=self.margin,
                least=self.least,
                side=side_of_pieces(self.method),
                **settings,
            )
        return timed_from(start, drawn)
