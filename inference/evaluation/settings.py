"""How much of a posterior to draw, and how many at once, where many posteriors are drawn and summed up."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RunSettings", "SimulationSettings"]


@dataclass(frozen=True)
class RunSettings:
    """What every posterior of a series of runs is drawn with: the keywords of :func:`score_real`.

    Parameters
    ----------
    draws, chains
        Of each posterior.
    seed
        Same seed, same numbers; the caller's generator is left alone.
    batch
        Posteriors that are drawn at once, by methods that can; memory grows with it.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        For a batch below 1.

    Examples
    --------
    >>> RunSettings(draws=100).chains
    16
    """

    draws: int = 50
    chains: int = 16
    seed: int = 0
    batch: int = 25
    progress: bool = True

    def __post_init__(self):
        _check_least("batch", self.batch, 1)


@dataclass(frozen=True)
class SimulationSettings(RunSettings):
    """What a calibration simulates: the keywords of :func:`calibrate`, beside the mask.

    Parameters
    ----------
    draws, chains
        Of each data set, before thinning; a method of particles keeps an eighth, whose fluctuation as a cloud is then
        small. ``draws=None`` are 100, or, with a goal, the most that the method takes to reach it.
    seed, batch, progress
        As for :class:`RunSettings`.
    datasets
        Simulated data sets, at least 10.
    pixels
        Hidden pixels that are ranked too, chosen at random.

    Raises
    ------
    ValueError
        For numbers out of range.

    Examples
    --------
    >>> SimulationSettings(datasets=50).batch
    50
    """

    draws: int | None = None  # type: ignore[assignment]
    batch: int = 50
    datasets: int = 500
    pixels: int = 3

    def __post_init__(self):
        super().__post_init__()
        _check_least("datasets", self.datasets, 10)
        _check_least("pixels", self.pixels, 0)


def _check_least(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r}; expected a whole number of at least {least}")
