"""Who takes part in `contest.py`, and the trial that chooses each rival's settings.

Every setting is tried on two posteriors that are not in the contest; a rival takes part with the one that is there
most often, and, of several, soonest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from contest_contenders import Rival, blackjax_chees, blackjax_meads, numpyro_nuts, pyro_nuts
from contest_measure import LIMIT, Measure, Posterior, Row, measured, ours, reference, rival, stored

from posterior_inpainting.inference import ChEES, Trusted

__all__ = ["OURS", "REFERENCE", "RIVALS", "TRIALS", "Setting", "chosen", "contenders", "is_tried", "tried"]

#: On which settings are tried.
TRIALS = (Posterior(5000, "half:bottom"), Posterior(5001, "scatter:0.1"))
#: Draws of all chains in a block, and the least of one chain.
_BLOCK, _LEAST = 1600, 8

REFERENCE = "reference"
OURS: dict[str, Measure] = {
    "ours: Auto": ours(None),
    # As many draws as there is time for, and the 16 chains from which on it works best.
    "ours: ChEES": ours(ChEES(), until=Trusted(), chains=16, draws=5000),
}


@dataclass(frozen=True)
class Setting:
    """A rival's chains, warm-up and further numbers by name."""

    draw: Rival
    chains: int
    warmup: int
    further: tuple[tuple[str, Any], ...] = ()

    def __str__(self):
        rest = "".join(f", {name} {value}" for name, value in self.further)
        return f"{TITLES[self.draw]}, {self.chains} chains, warm-up {self.warmup}{rest}"

    def measure(self) -> Measure:
        """Return what measures it."""
        draw = partial(self.draw, **dict(self.further)) if self.further else self.draw
        return rival(draw, self.warmup, max(_LEAST, _BLOCK // self.chains), self.chains)


def _grid(draw: Rival, chains: tuple[int, ...], warmups: tuple[int, ...], **further: Any) -> list[Setting]:
    """Return every combination of chains and warm-ups."""
    return [Setting(draw, c, w, tuple(further.items())) for c in chains for w in warmups]


TITLES = {
    blackjax_chees: "ChEES",
    blackjax_meads: "MEADS",
    numpyro_nuts: "vectorised",
    pyro_nuts: "one chain after the other",
}
#: What is tried of each rival. BlackJAX takes part twice, as nobody knows beforehand how many chains a posterior needs;
#: of its rates the first is that of `sampling.py`, which makes warm-up long.
RIVALS: dict[str, list[Setting]] = {
    "BlackJAX few": [
        *_grid(blackjax_chees, (16,), (200,), rate=0.5),
        *_grid(blackjax_chees, (16, 8), (200, 100, 400), rate=0.05),
    ],
    "BlackJAX many": [
        *_grid(blackjax_chees, (64,), (200,), rate=0.5),
        *_grid(blackjax_chees, (64, 256), (200, 100, 400), rate=0.05),
        *_grid(blackjax_meads, (256,), (400,)),
        *_grid(blackjax_meads, (128,), (1600,)),
    ],
    "NumPyro NUTS": [
        *_grid(numpyro_nuts, (4, 16, 64), (150,)),
        *_grid(numpyro_nuts, (16, 64), (150,), dense=True),
    ],
    "Pyro NUTS": _grid(pyro_nuts, (4,), (150,)),
}


def tried(store: Path, name: str, quick: bool = False) -> dict[Setting, list[Row]]:
    """Return the rows of a rival's settings on the trial's posteriors, measured where they are not stored."""
    settings = RIVALS[name][:1] if quick else RIVALS[name]
    if len(settings) == 1:
        return {settings[0]: []}
    return {
        setting: [measured(store, f"{name}, {setting}", setting.measure(), trial) for trial in TRIALS]
        for setting in settings
    }


def is_tried(store: Path, name: str, quick: bool = False) -> bool:
    """Return whether the trial of a rival is done."""
    settings = RIVALS[name]
    if quick or len(settings) == 1:
        return True
    return all(stored(store, f"{name}, {setting}", trial) for setting in settings for trial in TRIALS)


def chosen(trials: dict[Setting, list[Row]]) -> Setting:
    """Return the setting that is there most often, and of several the one that is soonest."""

    def cost(setting: Setting) -> tuple[int, float]:
        rows = trials[setting]
        return -sum(row["there"] for row in rows), sum(min(row["seconds"], LIMIT) for row in rows)

    return min(trials, key=cost)


def contenders(store: Path, names: Sequence[str], quick: bool = False) -> dict[str, Measure]:
    """Return what measures each of the named contenders and the reference; a rival's settings are part of its name."""
    found = {name: measure for name, measure in OURS.items() if name in names}
    for name in RIVALS:
        if name in names:
            setting = chosen(tried(store, name, quick))
            found[f"{name}, {setting}"] = setting.measure()
    return found | ({REFERENCE: reference} if REFERENCE in names else {})
