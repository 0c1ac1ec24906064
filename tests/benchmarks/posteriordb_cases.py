"""The posteriors of the posteriordb benchmark: models with their data, and the moments of the reference draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import posteriordb_models as models
from posteriordb_language import Language

__all__ = ["POSTERIORS", "Posterior", "Reference", "named"]

FOLDER = Path(__file__).parent / "posteriordb"


@dataclass(frozen=True)
class Reference:
    """Means and standard deviations of a posterior's quantities, by posteriordb's names, such as ``beta[1]``."""

    mean: dict[str, float]
    sd: dict[str, float]

    def errors(self, draws: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
        """Return how far draws by name are off: means in standard deviations, and standard deviations relatively."""
        means = {name: float((draws[name].mean() - mean) / self.sd[name]) for name, mean in self.mean.items()}
        return means, {name: float(draws[name].std() / sd - 1) for name, sd in self.sd.items()}


@dataclass(frozen=True)
class Posterior:
    """One posterior: its model, its file of data, and what is made of them before the model sees them."""

    name: str
    model: Callable[[Language, dict], None]
    file: str
    prepare: Callable[[dict[str, np.ndarray]], dict[str, Any]]
    constraints: str = ""

    def data(self, lib: Language) -> dict[str, Any]:
        """Return the data, arrays as the language has them."""
        raw = {key: np.asarray(value, float) for key, value in json.loads(_text(self.file)).items()}
        made = self.prepare(raw)
        return {key: lib.array(one) if isinstance(one, np.ndarray) else one for key, one in made.items()}

    def reference(self) -> Reference:
        """Return the moments that draws are compared with."""
        stored = json.loads(_text("reference"))[self.name]
        mean, square = np.array(stored["mean"]), np.array(stored["mean_square"])
        sd = np.sqrt(square - mean**2)
        names = stored["names"]
        return Reference(dict(zip(names, mean, strict=True)), dict(zip(names, sd, strict=True)))


def named(draws: dict[str, np.ndarray], leading: int = 2) -> dict[str, np.ndarray]:
    """Return draws ``(chain, draw, *event)`` of sites by the names of numbers, counted from 1 as Stan does.

    >>> sorted(named({"mu": np.zeros((2, 3)), "beta": np.zeros((2, 3, 2))}))
    ['beta[1]', 'beta[2]', 'mu']
    """
    found = {}
    for site, values in draws.items():
        for index in np.ndindex(values.shape[leading:]):
            name = f"{site}[{','.join(str(i + 1) for i in index)}]" if index else site
            found[name] = values[(..., *index)]
    return found


@cache
def _text(file: str) -> str:
    return (FOLDER / f"{file}.json").read_text()


def _hidden_states(raw: dict) -> dict:
    return raw | {"centre": np.array([3.0, 10.0])}


def _lags(raw: dict, order: int = 5) -> dict:
    y = raw["y"]
    before = np.stack([y[order - lag : len(y) - lag] for lag in range(1, order + 1)], 1)
    return {"y": y[order:], "before": before}


def _volatility(raw: dict) -> dict:
    return raw | {"sigma1": raw["sigma1"].reshape(1)}


def _distances(raw: dict) -> dict:
    square = (raw["x"][:, None] - raw["x"]) ** 2
    return {"y": raw["y"], "k": raw["k"], "square_distance": square, "identity": np.eye(len(square))}


def _kids(raw: dict) -> dict:
    school, iq = raw["mom_hs"], raw["mom_iq"]
    return {"y": raw["kid_score"], "predictors": np.stack([np.ones(len(iq)), school, iq, school * iq], 1)}


_SIZES = ("diam1", "diam2", "canopy_height", "total_height", "density")


def _bushes(raw: dict) -> dict:
    columns = [np.ones(len(raw["weight"])), *(raw[name] for name in _SIZES), raw["group"]]
    return {"y": raw["weight"], "predictors": np.stack(columns, 1), "unit": 500.0}


def _log_bushes(raw: dict) -> dict:
    columns = [np.ones(len(raw["weight"])), *(np.log(raw[name]) for name in _SIZES), raw["group"]]
    return {"y": np.log(raw["weight"]), "predictors": np.stack(columns, 1), "unit": 5.0}


def _correlated(raw: dict) -> dict:
    columns = np.log(np.stack([raw[name] for name in ("diam1", "diam2", "total_height")], 1))
    return {"y": (columns - columns.mean(0)) / columns.std(0), "zero": np.zeros(3)}


def _trials(raw: dict) -> dict:
    y = raw["y"]
    shocked, avoided = (np.cumsum(one, 1) - one for one in (y, 1 - y))
    return {"y": y.ravel(), "shocked": shocked.ravel(), "avoided": avoided.ravel()}


def _captures(raw: dict) -> dict:
    unseen = float(raw["augmented"] - len(raw["captures"]))
    return {"captures": raw["captures"], "occasions": float(raw["occasions"]), "unseen": unseen}


def _as_they_are(raw: dict) -> dict:
    return raw


POSTERIORS = {
    one.name: one
    for one in (
        Posterior(
            "eight_schools-eight_schools_noncentered",
            models.eight_schools_noncentered,
            "eight_schools",
            _as_they_are,
            "positive",
        ),
        Posterior(
            "eight_schools-eight_schools_centered",
            models.eight_schools_centered,
            "eight_schools",
            _as_they_are,
            "positive",
        ),
        Posterior(
            "hmm_example-hmm_example", models.hmm_example, "hmm_example", _hidden_states, "simplex, ordered"
        ),
        Posterior(
            "low_dim_gauss_mix-low_dim_gauss_mix",
            models.low_dim_gauss_mix,
            "low_dim_gauss_mix",
            _as_they_are,
            "ordered, positive, (0, 1)",
        ),
        Posterior("arK-arK", models.ar_k, "arK", _lags, "positive"),
        Posterior("arma-arma11", models.arma11, "arma", _as_they_are, "positive"),
        Posterior("garch-garch11", models.garch11, "garch", _volatility, "positive, one bound by another"),
        Posterior("gp_pois_regr-gp_regr", models.gp_regr, "gp_pois_regr", _distances, "positive"),
        Posterior("gp_pois_regr-gp_pois_regr", models.gp_pois_regr, "gp_pois_regr", _distances, "positive"),
        Posterior("kidiq-kidscore_interaction", models.kidscore_interaction, "kidiq", _kids, "positive"),
        Posterior("mesquite-mesquite", models.regression, "mesquite", _bushes, "positive"),
        Posterior("mesquite-logmesquite", models.regression, "mesquite", _log_bushes, "positive"),
        Posterior("dogs-dogs", models.dogs, "dogs", _trials),
        Posterior("dogs-dogs_hierarchical", models.dogs_hierarchical, "dogs", _trials, "(0, 1)"),
        Posterior("M0_data-M0_model", models.m0, "M0", _captures, "(0, 1)"),
        Posterior("Rate_5_data-Rate_5_model", models.rate_5, "Rate_5", _as_they_are, "(0, 1)"),
        Posterior("ours-correlations", models.correlations, "mesquite", _correlated, "Cholesky factor"),
    )
}
