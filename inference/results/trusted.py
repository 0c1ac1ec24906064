r"""`Trusted`: when a run of Markov chains may end, judged while it goes on.

Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, *Rank-normalization, folding, and localization: an improved R-hat*:
draws can be used where the rank-normalised split R-hat of every quantity is below 1.01, and its effective sample sizes
in bulk and tails are above 400. Quantities are the latents, and the hidden pixels of the completions.

Looking costs a share of the sampling that does not grow: at draws that are a third more than at the last look, and at
first by R-hats without ranks, a single pass, which let through what has any chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from posterior_inpainting.inference.results.chain_statistics import ess, rhat

__all__ = ["ESS", "RHAT", "Trusted", "Watch"]

#: Thresholds of Vehtari et al. 2021: R-hat, and total ESS of draws that can be used.
RHAT, ESS = 1.01, 400.0
#: Draws a chain without which there is no R-hat.
_LEAST = 4
#: Draws a chain at the first look, and by how much more there are at each that follows.
_FIRST, _MORE = 8, 4 / 3


@dataclass(frozen=True)
class Trusted:
    """What draws have to reach: ``infer(..., until=Trusted())`` ends a run of Markov chains as soon as they do.

    Parameters
    ----------
    rhat
        Which the rank-normalised split R-hat of every latent and hidden pixel has to be below.
    ess
        Which their effective sample sizes, in bulk and in both tails, have to be above.

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

    def __post_init__(self):
        if not self.rhat > 1 or not self.ess > 0:
            raise ValueError(
                f"rhat={self.rhat}, ess={self.ess}; expected an R-hat above 1 and a positive sample size"
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
        return ""


class Watch:
    """Looks at the draws of a run as they come, and says when it may end; ``Plan.watch`` is one.

    Parameters
    ----------
    goal
        What they have to reach.
    values
        From latents ``(group, chain, draw, *event)`` by site, a block of a run, to what is judged of each group:
        name -> ``(chain, draw, quantity)``.
    """

    def __init__(self, goal: Trusted, values: Callable[[dict[str, Tensor]], list[dict[str, np.ndarray]]]):
        self.goal, self.values = goal, values
        self.blocks: list[list[dict[str, np.ndarray]]] = []
        self.draws, self.looked, self.next = 0, 0, _FIRST
        self.missing = "draws: none are there"

    def is_enough(self, latents: dict[str, Tensor]) -> bool:
        """Take in a block of draws; return whether no more are needed."""
        self.blocks.append(self.values(latents))
        self.draws += next(iter(latents.values())).shape[2]
        if self.draws >= self.next:
            self.next = int(np.ceil(_MORE * self.draws))
            self.look()
        return not self.missing

    def look(self) -> str:
        """Return what the draws so far lack, of the first group that lacks anything."""
        if self.looked == self.draws:
            return self.missing
        self.looked = self.draws
        groups = zip(*self.blocks, strict=True)
        self.blocks = [[_joined(blocks) for blocks in groups]]
        lacking = (self.goal.missing(values) for values in self.blocks[0])
        self.missing = next((words for words in lacking if words), "")
        return self.missing


def _joined(blocks: tuple[dict[str, np.ndarray], ...]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([one[name] for one in blocks], 1) for name in blocks[0]}


def _worst(
    values: Mapping[str, np.ndarray], statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, str]:
    """Return the largest of a statistic and its name's; what does not vary has none."""
    found = {name: np.asarray(statistic(one)).ravel() for name, one in values.items() if one.shape[-1]}
    most = {name: float(np.nanmax(one)) for name, one in found.items() if not np.isnan(one).all()}
    return max(((value, name) for name, value in most.items()), default=(1.0 - np.finfo(float).eps, ""))
