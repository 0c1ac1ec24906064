"""An approach to one image: which model, fitted by which method, and how many draws of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from posterior_inpainting.inference.bars import shown
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.drawing_in_windows import infer_in_windows, side_of_pieces
from posterior_inpainting.inference.execution import timed_from
from posterior_inpainting.inference.verbs import infer
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Measurement
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import Image, Mask, describe

__all__ = ["Approach", "ModelMaker"]


class ModelMaker(ABC):
    """Makes the model of an approach where it is first needed, so that an approach can be named and sent unloaded."""

    #: Whether each image has a model of its own; otherwise one model serves all of them.
    for_each_image: bool = True

    @abstractmethod
    def __call__(self, observation: Observation | Measurement) -> ImageModel:
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
    finish
        What is done to the completions of an optimiser afterwards, where a published method goes on from its optimum:
        a function from completions, image and mask to completions, such as ``blend``. Its name becomes the attribute
        ``finish`` of the result. Those of a measurement, of which no pixel is seen, stay as they are.

    Raises
    ------
    ValueError
        For something else than a model or a method, or a ``finish`` of draws: changed afterwards, they are draws of
        no posterior.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact
    >>> from posterior_inpainting.models import GaussianProcess
    >>> Approach(GaussianProcess.fit, Exact(), draws=400, chains=1).draws
    400
    """

    model: ImageModel | Callable[[Any], ImageModel]
    method: Method
    draws: int = 50
    chains: int = 16
    margin: int | None = None
    least: int = 1
    finish: Callable[[Image, Image, Mask], Image] | None = None

    def __post_init__(self):
        if not callable(self.model):
            raise ValueError(f"model is {describe(self.model)}; expected an ImageModel or a function to one")
        if not isinstance(self.method, Method) or isinstance(self.method, type):
            raise ValueError(
                f"method is {describe(self.method)}; expected one such as ChEES() or Variational()"
            )
        if self.finish is not None and self.method.draws_are != "restarts":
            raise ValueError(
                f"finish changes the completions of {self.method.label}, which are draws; expected an optimiser: MAP()"
            )

    def model_for(self, observation: Observation | Measurement) -> ImageModel:
        """Return the model of one observation."""
        return self.model if isinstance(self.model, ImageModel) else self.model(observation)

    @property
    def for_each_image(self) -> bool:
        """Whether each image has a model of its own."""
        if isinstance(self.model, ModelMaker):
            return self.model.for_each_image
        return not isinstance(self.model, ImageModel)

    def made_for(self, observation: Observation | Measurement) -> Approach:
        """Return the same approach with the model of one observation."""
        return replace(self, model=self.model_for(observation))

    def complete(
        self,
        observation: Observation | Measurement,
        *,
        seed: int = 0,
        progress: bool = True,
        budget: str | None = None,
    ):
        """Return what ``infer`` does, or ``infer_in_windows`` where there is a margin; its seconds count the fit.

        A measurement is of the whole image, and so is its completion. Raises ``ValueError`` for a ``budget``, as for
        ``infer``, where there are windows: every one needs its draws.
        """
        start = time.perf_counter()
        settings: dict[str, Any] = {
            "draws": self.draws,
            "chains": self.chains,
            "seed": seed,
            "progress": progress,
        }
        if self.margin is None or isinstance(observation, Measurement):
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
        return timed_from(start, self._finished(drawn, observation))

    def _finished(self, drawn, observation: Observation | Measurement):
        """Return what was drawn with its completions finished, in place."""
        if self.finish is None or isinstance(observation, Measurement):
            return drawn
        completion = drawn["posterior"]["completion"]
        whole = torch.from_numpy(completion.to_numpy())
        finished = self.finish(whole, observation.image, observation.mask)
        drawn["posterior"]["completion"] = completion.copy(data=finished.numpy())
        drawn.attrs["finish"] = self.finish.__name__
        return drawn
