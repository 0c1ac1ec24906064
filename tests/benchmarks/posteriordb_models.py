r"""Models of posteriordb, each written once, for Pyro and for NumPyro, from what it says of the world.

Magnusson, Torgander, Bürkner, Zhang, Carpenter & Vehtari 2025, *posteriordb: Testing, Benchmarking and Developing
Bayesian Inference Algorithms*. A model takes the ``Language`` that it is written in and a dictionary of data. Where
posteriordb has a flat prior it is one here as well: a masked law has the density 1, and only says where chains may
start.
"""

from __future__ import annotations

from typing import Any

from posteriordb_language import Language

__all__ = [
    "ar_k",
    "arma11",
    "correlations",
    "dogs",
    "dogs_hierarchical",
    "eight_schools_centered",
    "eight_schools_noncentered",
    "garch11",
    "gp_pois_regr",
    "gp_regr",
    "hmm_example",
    "kidscore_interaction",
    "low_dim_gauss_mix",
    "m0",
    "rate_5",
    "regression",
]


def eight_schools_noncentered(lib: Language, data: dict) -> None:
    """Effects of coaching in eight schools, in units of their spread (Rubin 1981)."""
    mu = lib.sample("mu", lib.dist.Normal(0.0, 5.0))
    tau = lib.sample("tau", lib.dist.HalfCauchy(5.0))
    theta = lib.deterministic("theta", mu + tau * lib.normal("theta_trans", 1.0, 8, flat=False))
    with lib.plate("schools", 8):
        lib.sample("y", lib.dist.Normal(theta, data["sigma"]), obs=data["y"])


def eight_schools_centered(lib: Language, data: dict) -> None:
    """Effects of coaching in eight schools, as they are: a funnel."""
    mu = lib.sample("mu", lib.dist.Normal(0.0, 5.0))
    tau = lib.sample("tau", lib.dist.HalfCauchy(5.0))
    with lib.plate("schools", 8):
        theta = lib.sample("theta", lib.dist.Normal(mu, tau))
        lib.sample("y", lib.dist.Normal(theta, data["sigma"]), obs=data["y"])


def hmm_example(lib: Language, data: dict) -> None:
    """Two hidden states with normal observations; means positive, which here goes without saying."""
    rows = [lib.sample(name, lib.dist.Dirichlet(lib.xp.ones(2))) for name in ("theta1", "theta2")]
    mu = lib.ordered("mu", 2)
    lib.factor("mu_prior", lib.dist.Normal(data["centre"], 1.0).log_prob(mu).sum())
    seen = lib.dist.Normal(mu, 1.0).log_prob(data["y"][:, None])
    steps = lib.log_product(lib.xp.log(lib.xp.stack(rows)) + seen[1:, None, :])
    lib.factor("y", lib.logsumexp((seen[0, :, None] + steps).reshape(-1), 0))


def low_dim_gauss_mix(lib: Language, data: dict) -> None:
    """Two normal components whose means are in order."""
    mu = lib.ordered("mu", 2)
    lib.factor("mu_prior", lib.dist.Normal(0.0, 2.0).log_prob(mu).sum())
    sigma = lib.sample("sigma", lib.dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = lib.sample("theta", lib.dist.Beta(5.0, 5.0))
    which = lib.dist.Categorical(probs=lib.xp.stack([theta, 1 - theta]))
    with lib.plate("points", len(data["y"])):
        law = lib.dist.MixtureSameFamily(which, lib.dist.Normal(mu, sigma))
        lib.sample("y", law, obs=data["y"])


def ar_k(lib: Language, data: dict) -> None:
    """Autoregression on the last five values."""
    alpha = lib.sample("alpha", lib.dist.Normal(0.0, 10.0))
    beta = lib.normal("beta", 10.0, 5, flat=False)
    sigma = lib.sample("sigma", lib.dist.HalfCauchy(2.5))
    with lib.plate("times", len(data["y"])):
        lib.sample("y", lib.dist.Normal(alpha + data["before"] @ beta, sigma), obs=data["y"])


def arma11(lib: Language, data: dict) -> None:
    """One autoregressive and one moving-average term; the error before the first is 0, the value ``mu``."""
    mu = lib.sample("mu", lib.dist.Normal(0.0, 10.0))
    phi = lib.sample("phi", lib.dist.Normal(0.0, 2.0))
    theta = lib.sample("theta", lib.dist.Normal(0.0, 2.0))
    sigma = lib.sample("sigma", lib.dist.HalfCauchy(2.5))
    y = data["y"]
    before = lib.xp.concatenate([mu[None], y[:-1]], 0)
    error = lib.recurrence(-theta, y - mu - phi * before)
    with lib.plate("times", len(y)):
        lib.sample("y", lib.dist.Normal(y - error, sigma), obs=y)


def garch11(lib: Language, data: dict) -> None:
    """Variance that follows the last square and the last variance; ``alpha1 + beta1 < 1``."""
    mu = lib.sample("mu", lib.dist.Normal(0.0, 10.0).mask(False))
    alpha0 = lib.sample("alpha0", lib.dist.HalfNormal(5.0).mask(False))
    alpha1 = lib.sample("alpha1", lib.dist.Uniform(0.0, 1.0))
    beta1 = lib.sample("beta1", lib.dist.Uniform(0.0, 1 - alpha1).mask(False))
    y = data["y"]
    inputs = lib.xp.concatenate([data["sigma1"] ** 2, alpha0 + alpha1 * (y[:-1] - mu) ** 2], 0)
    with lib.plate("times", len(y)):
        lib.sample("y", lib.dist.Normal(mu, lib.xp.sqrt(lib.recurrence(beta1, inputs))), obs=y)


def gp_regr(lib: Language, data: dict) -> None:
    """Gaussian process with a squared exponential kernel; ``sigma`` is the noise's variance."""
    covariance = _kernel(lib, data)
    sigma = lib.sample("sigma", lib.dist.HalfNormal(1.0))
    covariance = covariance + sigma * data["identity"]
    law = lib.dist.MultivariateNormal(lib.xp.zeros_like(data["y"]), covariance_matrix=covariance)
    lib.sample("y", law, obs=data["y"])


def gp_pois_regr(lib: Language, data: dict) -> None:
    """Counts whose log rate is a Gaussian process."""
    factor = lib.xp.linalg.cholesky(_kernel(lib, data) + 1e-10 * data["identity"])
    f = lib.deterministic("f", factor @ lib.normal("f_tilde", 1.0, len(data["k"]), flat=False))
    with lib.plate("points", len(data["k"])):
        lib.sample("k", lib.dist.Poisson(lib.xp.exp(f)), obs=data["k"])


def _kernel(lib: Language, data: dict) -> Any:
    rho = lib.sample("rho", lib.dist.Gamma(25.0, 4.0))
    alpha = lib.sample("alpha", lib.dist.HalfNormal(2.0))
    return alpha**2 * lib.xp.exp(-0.5 * data["square_distance"] / rho**2)


def regression(lib: Language, data: dict) -> None:
    """Linear regression with flat coefficients and a flat scale, around those of the data (Gelman & Hill 2007)."""
    beta = lib.normal("beta", data["unit"], data["predictors"].shape[1])
    sigma = lib.sample("sigma", lib.dist.HalfNormal(data["unit"]).mask(False))
    with lib.plate("rows", len(data["y"])):
        lib.sample("y", lib.dist.Normal(data["predictors"] @ beta, sigma), obs=data["y"])


def kidscore_interaction(lib: Language, data: dict) -> None:
    """Children's scores by their mothers' school and intelligence, whose units and offsets are as they are."""
    beta = lib.normal("beta", 50.0, 4)
    sigma = lib.sample("sigma", lib.dist.HalfCauchy(2.5))
    with lib.plate("rows", len(data["y"])):
        lib.sample("y", lib.dist.Normal(data["predictors"] @ beta, sigma), obs=data["y"])


def dogs(lib: Language, data: dict) -> None:
    """Whether a dog is shocked, by how often it was and how often it got away (Solomon & Wynne 1953)."""
    beta = lib.normal("beta", 100.0, 3, flat=False)
    logits = beta[0] + beta[1] * data["avoided"] + beta[2] * data["shocked"]
    with lib.plate("trials", len(data["y"])):
        lib.sample("y", lib.dist.Bernoulli(logits=logits), obs=data["y"])


def dogs_hierarchical(lib: Language, data: dict) -> None:
    """The same with the probability ``a ** shocks * b ** escapes``."""
    a, b = (lib.sample(name, lib.dist.Uniform(0.0, 1.0)) for name in ("a", "b"))
    chance = a ** data["shocked"] * b ** data["avoided"]
    with lib.plate("trials", len(data["y"])):
        lib.sample("y", lib.dist.Bernoulli(probs=chance), obs=data["y"])


def m0(lib: Language, data: dict) -> None:
    """Capture and recapture: animals exist with probability ``omega`` and are caught with ``p`` (Royle & Dorazio)."""
    omega, p = (lib.sample(name, lib.dist.Uniform(0.0, 1.0)) for name in ("omega", "p"))
    caught, seen, unseen = data["captures"].sum(), len(data["captures"]), data["unseen"]
    tries = data["occasions"] * seen
    lib.factor(
        "seen", seen * lib.xp.log(omega) + caught * lib.xp.log(p) + (tries - caught) * lib.xp.log1p(-p)
    )
    lib.factor("unseen", unseen * lib.xp.log1p(-omega + omega * (1 - p) ** data["occasions"]))


def rate_5(lib: Language, data: dict) -> None:
    """One rate behind two counts that could not differ more (Lee & Wagenmakers 2013)."""
    theta = lib.sample("theta", lib.dist.Beta(1.0, 1.0))
    with lib.plate("counts", 2):
        lib.sample("k", lib.dist.Binomial(data["n"], probs=theta), obs=data["k"])


def correlations(lib: Language, data: dict) -> None:
    """Correlations of three standardised measures: no posterior of posteriordb's, its moments are by quadrature."""
    factor = lib.sample("factor", lib.dist.LKJCholesky(3, 1.0))
    matrix = factor @ lib.xp.swapaxes(factor, -1, -2)
    lib.deterministic("r", lib.xp.stack([matrix[1, 0], matrix[2, 0], matrix[2, 1]]))
    with lib.plate("rows", len(data["y"])):
        lib.sample("y", lib.dist.MultivariateNormal(data["zero"], scale_tril=factor), obs=data["y"])
