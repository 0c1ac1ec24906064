r"""`Trusted`: when a run of Markov chains may end, judged while it goes on.

Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, *Rank-normalization, folding, and localization: an improved R-hat*:
draws can be used where the rank-normalised split R-hat of every quantity is below 1.01, and its effective sample sizes
in bulk and tails are above 400. Quantities are the latents, the hidden
pixels of the completions, and the log density.

Looking costs a share of the sampling that does not grow: at draws that are a third more than at the last look, and at
first by R-hats without ranks, a single pass, which let through what has any chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
from torch import Tensor

from posterior_inpainting.inference.results.chain_statistics import error_of_sd, ess, rhat

__all__ = [
    "ERROR_OF_SD",
    "ESS",
    "FIRST",
    "LOG_DENSITY",
    "RHAT",
    "Trusted",
    "Watch",
    "error_of_wide_ones",
    "log_density",
]

#: Thresholds of Vehtari et al. 2021: R-hat, and total ESS of draws that can be used.
RHAT, ESS = 1.01, 400.0
#: Relative standard error of standard deviations of draws that can be used, the part of the widest quantity that one
#: may vary by if its own is to count, and how many standard errors more than the draws say that may be.
ERROR_OF_SD, _WIDE, _AT_MOST = 0.07, 0.2, 3.0
#: Draws a chain without which there is no R-hat.
_LEAST = 4
#: What there is to say before the first look.
_NONE = "draws: none are there"
#: From a block's latents by site, ``(group, chain, draw, *event)``, and the numbers of its groups: what is judged of
#: each, name -> ``(chain, draw, quantity)``.
Values = Callable[[dict[str, Tensor], Sequence[int]], list[dict[str, np.ndarray]]]
#: By how much more than what is asked for R-hats exceed 1 where chains disagree by far.
_APART = 3.0
#: The statistic that is judged beside latents and pixels.
LOG_DENSITY = "lp"
_NO_STATISTICS: Mapping[str, Tensor] = MappingProxyType({})
#: Draws a chain at the first look, and by how much more there are at each that follows.
FIRST, _MORE = 8, 4 / 3


@dataclass(frozen=True)
class Trusted:
    """What draws have to reach: ``infer(..., until=Trusted())`` ends a run of Markov chains as soon as they do.

    Parameters
    ----------
    rhat
        Which the rank-normalised split R-hat of every latent and hidden pixel, and of the log density, has to be below.
    ess
        Which their effective sample sizes, in bulk and in both tails, have to be above.
    error_of_sd
        Which the standard errors of their standard deviations, relative to these, have to be below: of all but those
        that vary less than a fifth of the widest of their name, three standard errors added.

    Raises
    ------
    ValueError
        For an R-hat of at most 1, or a size that is not positive.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> Trusted().missing({"z": draws})
    ''
    >>> Trusted(rhat=1.05).missing({"z": draws[:, :50]}).split(" of ")[0].split()[-2:]
    ['in', 'bulk']
    >>> Trusted().missing({"z": draws + np.arange(4)[:, None, None]})
    'R-hat 1.59 of z, where less than 1.01 is asked for'
    """

    rhat: float = RHAT
    ess: float = ESS
    error_of_sd: float = ERROR_OF_SD

    def __post_init__(self):
        if not self.rhat > 1 or not self.ess > 0 or not self.error_of_sd > 0:
            raise ValueError(
                f"rhat={self.rhat}, ess={self.ess}, error_of_sd={self.error_of_sd}; expected an R-hat above 1, a "
                "positive sample size and a positive error"
            )

    def __str__(self) -> str:
        """Return what is asked for."""
        return f"R-hat below {self.rhat:g}, ESS above {self.ess:g}"

    def missing(self, values: Mapping[str, np.ndarray]) -> str:
        """Return what draws ``(chain, draw, quantity)`` by name still lack, ``""`` where it is nothing.

        A quantity that does not vary, a black corner say, lacks nothing.
        """
        asked = f"where less than {self.rhat:g} is asked for"
        if any(len(one) < 2 for one in values.values()):
            return "a second chain, without which no mode that one never saw is missed"
        if any(one.shape[1] < _LEAST for one in values.values()):
            return f"draws: fewer than {_LEAST} a chain"
        worst, name = _worst(values, partial(rhat, ranks=False))
        if worst > 1 + 2 * (self.rhat - 1):
            return f"R-hat {worst:.2f} of {name}, {asked}"
        worst, name = _worst(values, rhat)
        if not worst < self.rhat:
            return f"R-hat {worst:.3f} of {name}, {asked}"
        for kind, where in (("bulk", "in bulk"), ("tail", "in the tails")):
            least, name = _worst(values, lambda one, kind=kind: -ess(one, kind))  # type: ignore[misc]
            if not -least > self.ess:
                return f"ESS {-least:.0f} {where} of {name}, where more than {self.ess:g} are asked for"
        worst, name = _worst(values, error_of_wide_ones)
        if worst > self.error_of_sd:
            return (
                f"standard error {100 * worst:.0f} % of a standard deviation of {name}, where less than "
                f"{100 * self.error_of_sd:g} % is asked for"
            )
        return ""


class Watch:
    """Looks at the draws of a run as they come, and says when it may end; ``Plan.watch`` is one.

    Parameters
    ----------
    goal
        What they have to reach.
    values
        Makes what is judged of a block of draws.
    groups
        Numbers of the posteriors.
    first
        Draws a chain at the first look.
    patience
        Draws after which a run may end because its chains disagree by far, so that it can be begun anew; of several
        posteriors also because some are done and others are not; ``None`` for never.
    """

    def __init__(
        self,
        goal: Trusted,
        values: Values,
        groups: Sequence[int] = (0,),
        first: int = FIRST,
        patience: int | None = None,
    ):
        self.goal, self.values, self.groups, self.patience = goal, values, [*groups], patience
        self.blocks: list[list[dict[str, np.ndarray]]] = []
        self.draws, self.looked, self.next = 0, 0, first
        self.lacking = dict.fromkeys(self.groups, _NONE)
        self.apart = dict.fromkeys(self.groups, 1.0)

    @property
    def missing(self) -> str:
        """What was lacking at the last look, of the first posterior that lacks anything."""
        return next((self.lacking[group] for group in self.groups if self.lacking[group]), "")

    def again(self, groups: Sequence[int], first: int = FIRST, patience: int | None = None) -> Watch:
        """Return a watch with the same goal on new draws of some of the posteriors; this one learns what it sees."""
        found = Watch(self.goal, self.values, groups, first, patience)
        found.lacking = self.lacking
        self.lacking |= dict.fromkeys(groups, _NONE)
        return found

    def lacks(self, group: int) -> str:
        """Return what the draws of one posterior lacked at the last look."""
        return self.lacking[group]

    def is_enough(self, latents: dict[str, Tensor], stats: Mapping[str, Tensor] = _NO_STATISTICS) -> bool:
        """Take in a block of draws and their statistics; return whether no more are needed."""
        values = self.values(latents, self.groups)
        if LOG_DENSITY in stats:
            energies = stats[LOG_DENSITY].cpu().numpy()
            values = [one | log_density(energies[index]) for index, one in enumerate(values)]
        self.blocks.append(values)
        self.draws += next(iter(latents.values())).shape[2]
        if self.draws >= self.next:
            self.next = int(np.ceil(_MORE * self.draws))
            self.look()
        impatient = self.patience is not None and self.draws >= self.patience
        many = len(self.groups) > 1
        return all(
            not self.lacking[group]
            or (impatient and (many or self.apart[group] > 1 + _APART * (self.goal.rhat - 1)))
            for group in self.groups
        )

    def look(self) -> str:
        """Return what the draws so far lack, of the first group that lacks anything."""
        if self.looked < self.draws:
            self.looked = self.draws
            self.blocks = [[_joined(blocks) for blocks in zip(*self.blocks, strict=True)]]
            for group, values in zip(self.groups, self.blocks[0], strict=True):
                self.lacking[group] = self.goal.missing(values)
                if self.patience is not None and self.lacking[group]:
                    self.apart[group] = _worst(values, rhat)[0]
        return self.missing


def log_density(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return log densities ``(chain, draw)`` by name as what is judged too: chains may differ in nothing else.

    Of two ways across a posterior, one of them narrow, a chain in each may have the same moments. Where a density is
    not finite there is nothing to judge.

    >>> [*log_density(np.zeros((4, 10)))], log_density(np.full((4, 10), np.nan))
    (['log density'], {})
    """
    return {"log density": values[..., None]} if np.isfinite(values).all() else {}


def error_of_wide_ones(values: np.ndarray) -> np.ndarray:
    """Return relative errors of standard deviations of ``(chain, draw, quantity)``; NaN where one hardly varies.

    What a few draws in thousands make wide may be wider than they say, and counts if it may be a fifth of the widest.

    >>> draws = np.random.default_rng(0).normal(size=(4, 100, 2)) * [1, 0.01]
    >>> np.isnan(error_of_wide_ones(draws)).tolist()
    [False, True]
    """
    widths, errors = values.std((0, 1)), error_of_sd(values)
    with np.errstate(invalid="ignore"):
        return np.where(widths * (1 + _AT_MOST * errors) < _WIDE * np.nanmax(widths), np.nan, errors)


def _joined(blocks: tuple[dict[str, np.ndarray], ...]) -> dict[str, np.ndarray]:
    names = [name for name in blocks[0] if all(name in one for one in blocks)]
    return {name: np.concatenate([one[name] for one in blocks], 1) for name in names}


def _worst(
    values: Mapping[str, np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, str]:
    """Return the largest of a statistic and its name's; what does not vary has none."""
    found = {name: np.asarray(statistic(one)).ravel() for name, one in values.items() if one.shape[-1]}
    most = {name: float(np.nanmax(one)) for name, one in found.items() if not np.isnan(one).all()}
    return max(((value, name) for name, value in most.items()), default=(1.0 - np.finfo(float).eps, ""))
