"""Statistical assertions: first an ESS floor, then an error within standard errors of the draws' own ESS."""

import arviz
import numpy as np
import xarray as xr


def ess_of(values: np.ndarray, kind: str = "bulk") -> np.ndarray:
    """ESS of ``(chain, draw, k)``, one for each of k."""
    data = xr.Dataset({"x": (("chain", "draw", "k"), values)})
    return arviz.ess(data, method=kind)["x"].to_numpy()


def assert_moments(
    values, mean, sd, *, independent: bool = False, floor: float = 100, errors: float = 5
) -> None:
    """Means and variances of ``(chain, draw, k)`` agree with ``(k,)`` truths within ``errors`` standard errors.

    The variance is tested as the mean of squared deviations from the *true* mean, whose own ESS and own
    fourth moment give its standard error, so that skewed targets get the tolerance they need.
    """
    values = np.asarray(values, float)
    mean, sd = np.asarray(mean, float), np.asarray(sd, float)
    squares = (values - mean) ** 2
    for name, draws, truth in (("mean", values, mean), ("variance", squares, sd**2)):
        count = draws.shape[0] * draws.shape[1]
        ess = np.full(draws.shape[-1], float(count)) if independent else ess_of(draws, "mean")
        assert (ess > floor).all(), f"not mixing: {name} has an ESS of {ess.min():.0f}, below {floor}"
        assert (draws.std((0, 1)) > 0).all(), f"never moves: the {name} of a component has no error"
        error = np.abs(draws.mean((0, 1)) - truth) / (draws.std((0, 1)) / np.sqrt(ess))
        worst = int(error.argmax())
        assert error[worst] < errors, (
            f"biased: the {name} of component {worst} is {draws.mean((0, 1))[worst]:.5g}, the truth "
            f"{truth[worst]:.5g}, {error[worst]:.1f} standard errors away"
        )
