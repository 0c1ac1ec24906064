r"""Test whether a method draws from the posterior, on data sets that the model itself made.

Draw a truth from the prior and an image from the model, hide pixels, draw the posterior: then truth and
draws have one law, whatever the model. Three readings of the same simulation:

* SBC (Talts et al. 2018): the rank of the truth among the draws is uniform, for each code component, hidden
  pixels, and data-dependent quantities (log likelihood, log joint), without which a posterior that ignores
  the data would pass (Modrak et al. 2023). Where completions are kept in place of many latents, the mean of the
  hidden pixels stands for the components.
* TARP (Lemos et al. 2023): so is the share of draws nearer to a random reference point than the truth. The
  reference is the likeliest of 16 draws of the prior, so that it depends on the data, for the same reason.
* Coverage of hidden pixels by central intervals.

Ranks are among *independent* draws: a Markov chain is thinned by its own integrated autocorrelation time,
the longest of all code components, their squares and the log density, data set by data set. Where the number
of draws S differs, ranks r become :math:`u = (r + V) / (S + 1)` with V uniform, exactly uniform for any S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.contract import Method, Plan, Problem
from posterior_inpainting.inference.evaluation.ranked import simulate
from posterior_inpainting.inference.evaluation.scores import LEVELS
from posterior_inpainting.inference.evaluation.settings import SimulationSettings
from posterior_inpainting.inference.evaluation.simulated_data import Batch, figures_of_batch
from posterior_inpainting.inference.evaluation.uniformity import Uniformity, uniformity
from posterior_inpainting.inference.results.trusted import Trusted, Watch
from posterior_inpainting.inference.results.watched_values import values_of_images
from posterior_inpainting.inference.settled import settled
from posterior_inpainting.inference.streams import Streams, callers_state_kept
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Mask, check_mask, describe

__all__ = ["Calibration", "calibrate", "coverage", "sbc", "tarp"]

#: Draws of each data set, a chain, where neither the caller nor a goal says how many.
_DRAWS = 100


@dataclass(frozen=True)
class Calibration:
    """What one simulation of many data sets gave; every table and verdict is read off it.

    Parameters
    ----------
    model, method
        What was run.
    names
        Test quantities, in the order of ``ranks``.
    ranks
        Independent draws below the truth, ``(data set, quantity)``; ties are broken at random.
    counts
        Independent draws S of each data set, ``(data set,)``.
    truth, reference
        The code behind each data set, and TARP's reference point, ``(data set, dim)``, unconstrained; completions
        where draws keep those instead.
    draws
        Thinned draws ``(data set, draw, dim)``, NaN beyond a data set's S.
    covered
        Share of a data set's hidden pixels inside central intervals, ``(data set, level)``.
    rhat
        Largest split R-hat of the components, ``(data set,)``; NaN where the draws are not Markov.
    seed
        Of the simulation.
    """

    model: str
    method: str
    names: tuple[str, ...]
    ranks: np.ndarray
    counts: np.ndarray
    truth: np.ndarray
    reference: np.ndarray
    draws: np.ndarray
    covered: np.ndarray
    rhat: np.ndarray
    seed: int

    def sbc(self, level: float = 0.95) -> Uniformity:
        """Return the rank ECDF of every quantity with one simultaneous band."""
        u = (self.ranks + self._ties("ranks", self.ranks.shape)) / (self.counts[:, None] + 1)
        return uniformity(dict(zip(self.names, u.T, strict=True)), level)

    def tarp(self, level: float = 0.95) -> Uniformity:
        """Return expected coverage of balls around random points, as its difference from the nominal one."""
        far = np.linalg.norm(self.draws - self.reference[:, None], axis=-1)
        nearer = (far < np.linalg.norm(self.truth - self.reference, axis=-1)[:, None]).sum(1)
        u = (nearer + self._ties("TARP", nearer.shape)) / (self.counts + 1)
        return uniformity({"TARP": u}, level)

    def coverage(self):
        """Return a table with one row a level: mean coverage of hidden pixels, and its standard error.

        Pixels of one image vary together, so that the error is that of the mean over data sets; the
        p-value is of the t-test against the nominal level.
        """
        import pandas as pd
        from scipy.stats import ttest_1samp

        error = self.covered.std(0, ddof=1) / np.sqrt(len(self.covered))
        return pd.DataFrame(
            {
                "covered": self.covered.mean(0),
                "standard error": error,
                "p": ttest_1samp(self.covered, LEVELS).pvalue,
            },
            index=pd.Index(LEVELS, name="level"),
        )

    def frame(self):
        """Return ranks, draws, coverage and R-hat as a table with one row a data set."""
        import pandas as pd

        table = pd.DataFrame(self.ranks, columns=[f"rank of {name}" for name in self.names])
        table.insert(0, "draws", self.counts)
        for index, one in enumerate(LEVELS):
            table[f"coverage {one:.0%}"] = self.covered[:, index]
        return table.assign(**{"R-hat": self.rhat}).rename_axis("data set")

    def _ties(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return the uniforms that spread whole ranks over the unit interval."""
        return Streams(self.seed).numpy("ties", name).random(shape)


def calibrate(
    model: ImageModel,
    method: Method | None = None,
    *,
    mask: Mask,
    until: Trusted | None = None,
    **settings: Any,
) -> Calibration:
    """Simulate data sets from a model, draw each one's posterior, and rank the truth among the draws.

    Parameters
    ----------
    model
        A model with continuous latents; simulated pixels may leave [0, 1].
    method
        Any method whose draws are draws; the default of ``infer`` where ``None``. Those that can run on ``batch`` data
        sets at once.
    mask
        ``(channel, row, column)``, ``True`` = seen, the same for all data sets.
    until
        What draws have to reach, each data set's; that of the default method where ``None``.
    **settings
        ``datasets=500``, ``draws=None``, ``chains=16``, ``seed=0``, ``batch=50``, ``pixels=3``, ``progress=True``:
        see :class:`SimulationSettings`.

    Raises
    ------
    ValueError
        For a mask that hides nothing, numbers out of range, or a method that returns restarts.
    TypeError
        For an unknown setting.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact
    >>> from posterior_inpainting.models import LinearGaussian, datasets, observations
    >>> model = LinearGaussian.fit(datasets.load("digits", split="train"), latent=2)
    >>> mask = observations.half(model.image_shape, hide="bottom")
    >>> found = calibrate(model, Exact(), mask=mask, datasets=50, draws=10, chains=2, progress=False)
    >>> found.sbc().inside_band, found.tarp().inside_band, found.ranks.shape
    (True, True, (50, 7))
    """
    given = SimulationSettings(**settings)
    _check(model, mask)
    mask = mask.expand(model.image_shape)
    any_image = Problem(model, (torch.zeros(model.image_shape), mask), guide=model.guide)
    run = settled(any_image, method, given.draws, given.chains, until)
    draws = _DRAWS if given.draws is None and run.goal is None else run.draws
    hidden = (~mask).nonzero()
    streams = Streams(given.seed)
    order = torch.randperm(len(hidden), generator=streams.generator("ranked pixels"))
    chosen = order[: given.pixels].sort().values
    rows: list[dict[str, Any]] = []
    # Shown from the first batch on, so that a mistake stays one line.
    bar = progress_bar(
        total=given.datasets, desc=f"calibrating {run.method.label}", disable=not given.progress, delay=1e-3
    )
    with callers_state_kept(), bar:
        with streams.seeded("truths"):
            simulated = [simulate(model) for _ in range(given.datasets)]
        for start in range(0, given.datasets, given.batch):
            some = Batch.of(simulated[start : start + given.batch], mask)
            problem = some.problem(model)
            watch = None
            if run.goal is not None:
                values = values_of_images(problem, [some[index] for index in range(len(some))])
                watch = Watch(run.goal, values, range(len(some)))
            plan = Plan(draws, given.chains, streams.child("batch", start), watch=watch)
            quantities, found = figures_of_batch(problem, run.method, some, chosen, plan)
            rows += found
            bar.update(len(some))
    names = (*quantities, *(f"pixel {tuple(pixel)}" for pixel in hidden[chosen].tolist()))
    figures = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return Calibration(type(model).__name__, run.method.label, names, **figures, seed=given.seed)


def sbc(
    model: ImageModel, method: Method | None = None, *, level: float = 0.95, **settings: Any
) -> Uniformity:
    """Return ``calibrate(model, method, **settings).sbc(level)``."""
    return calibrate(model, method, **settings).sbc(level)


def tarp(
    model: ImageModel, method: Method | None = None, *, level: float = 0.95, **settings: Any
) -> Uniformity:
    """Return ``calibrate(model, method, **settings).tarp(level)``."""
    return calibrate(model, method, **settings).tarp(level)


def coverage(model: ImageModel, method: Method | None = None, **settings: Any):
    """Return ``calibrate(model, method, **settings).coverage()``."""
    return calibrate(model, method, **settings).coverage()


def _check(model: ImageModel, mask: Mask) -> None:
    if not isinstance(model, ImageModel):
        raise ValueError(f"model is {describe(model)}; expected an ImageModel")
    check_mask(mask, model.image_shape)
    if mask.expand(model.image_shape).all():
        raise ValueError("the mask hides nothing, so that there is nothing to calibrate")
