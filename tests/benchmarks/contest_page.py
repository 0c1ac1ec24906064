"""The tables of `contest.py`: who is there, how soon, how far off, and which settings were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import tables
from contest_measure import LIMIT, Posterior, Row
from contest_settings import Setting, chosen
from trusted import GARMENT_MASKS, WIDE

__all__ = ["by_contender", "by_mask", "differences", "seconds_of", "settings_tried"]

#: From which differences on somebody who says to be there counts as wrong: five standard errors at an effective size
#: of 400, of a mean in standard deviations, and as much of a standard deviation.
WRONG = 0.25
#: Above which R-hat a reference is none.
_AGREED = 1.01

#: Of a contender, a row a posterior.
Rows = Mapping[Posterior, Row]


def seconds_of(row: Row) -> float:
    """Return the seconds that it took, infinite for who is not there."""
    return row["seconds"] if row["there"] else np.inf


def _shown(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds <= LIMIT else f"> {LIMIT:.0f}"


def _quantile(seconds: Sequence[float], share: float) -> float:
    """Return the quantile without a mean of neighbours, of which one may be infinite."""
    return float(np.quantile(seconds, share, method="higher"))


def by_contender(rows: Mapping[str, Rows], first: str) -> str:
    """Return how often and how soon each is there, and how often sooner than the first."""
    records = []
    leader = [seconds_of(row) for row in rows[first].values()]
    for name, mine in rows.items():
        seconds = [seconds_of(row) for row in mine.values()]
        # The same code may have been compiled for another posterior before.
        compilation = max(row["compilation"] for row in mine.values())
        ratios = [min(one, LIMIT) / min(other, LIMIT) for one, other in zip(seconds, leader, strict=True)]
        more = " or more" * (_quantile(seconds, 0.5) > LIMIT)
        sooner = [one < other for one, other in zip(seconds, leader, strict=True)]
        records.append(
            {
                "contender": name,
                f"there within {LIMIT:.0f} s": f"{100 * np.mean(np.isfinite(seconds)):.0f} %",
                "seconds, median": _shown(_quantile(seconds, 0.5)),
                "90 %": _shown(_quantile(seconds, 0.9)),
                f"times as long as {first}, median": f"{median(ratios):.1f}{more}",
                f"sooner than {first}": f"{100 * np.mean(sooner):.0f} %",
                "compilation": f"{compilation:.1f}",
                "median with it": _shown(_quantile(seconds, 0.5) + compilation),
            }
        )
    return tables.table_of(records)


def by_mask(rows: Mapping[str, Rows]) -> str:
    """Return the same for each mask: share, median."""
    records = []
    for name, mine in rows.items():
        record = {"contender": name}
        for mask in GARMENT_MASKS:
            seconds = [seconds_of(row) for posterior, row in mine.items() if posterior.mask == mask]
            if seconds:
                share = f"{100 * np.mean(np.isfinite(seconds)):.0f} %"
                record[mask] = f"{share}, {_shown(_quantile(seconds, 0.5))}"
        records.append(record)
    return tables.table_of(records)


def difference(row: Row, reference: Row) -> tuple[float, float]:
    """Return the largest difference of a mean, in standard deviations, and of a standard deviation, relative to it.

    Over pixels that vary at least a fifth as much as the widest.
    """
    mean, sd, true_mean, true_sd = (
        np.array(one[part]) for one in (row, reference) for part in ("mean", "sd")
    )
    wide = true_sd > WIDE * true_sd.max()
    off = np.abs(mean - true_mean)[wide] / true_sd[wide]
    return float(off.max()), float(np.abs(sd[wide] / true_sd[wide] - 1).max())


def differences(rows: Mapping[str, Rows], references: Rows) -> str:
    """Return how far off each is where it says to be there, of posteriors whose reference agrees with itself."""
    records: list[dict[str, Any]] = []
    for name, mine in rows.items():
        found = [
            difference(mine[posterior], true)
            for posterior, true in references.items()
            if true["rhat"] < _AGREED and posterior in mine and mine[posterior]["there"]
        ]
        if found:
            means, sds = zip(*found, strict=True)
            wrong = [max(pair) > WRONG for pair in found]
            records.append(
                {
                    "contender": name,
                    "there, with a reference": len(found),
                    "mean, median": median(means),
                    "worst": max(means),
                    "sd, median": median(sds),
                    "worst sd": max(sds),
                    f"wrong: off by more than {WRONG}": f"{sum(wrong)} ({100 * np.mean(wrong):.0f} %)",
                }
            )
    return tables.table_of(records) if records else "None is there."


def settings_tried(trials: Mapping[str, Mapping[Setting, list[Row]]]) -> str:
    """Return what came of each setting, the chosen one of each rival marked."""
    records = []
    for name, settings in trials.items():
        best = chosen(dict(settings))
        for setting, rows in settings.items():
            seconds = [_shown(seconds_of(row)) for row in rows]
            mark = "takes part" if setting == best else ""
            records.append(
                {"rival": name, "settings": str(setting), "seconds": " / ".join(seconds) or "-", "": mark}
            )
    return tables.table_of(records)
