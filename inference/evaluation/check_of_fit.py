"""Whether the model could have made what was seen: posterior predictive checks on the seen pixels."""

from __future__ import annotations

from posterior_inpainting.inference.results.containers import group

__all__ = ["check_of_fit"]


def check_of_fit(idata) -> dict[str, float]:
    """Return posterior predictive p-values (Gelman, Meng & Stern 1996) of what was seen, by what is compared.

    The share of draws whose replicate of the seen pixels is at least as large as what was seen in its mean, in its
    standard deviation, and in its distance from the draw's own completion. Near 0 or 1 the model does not fit, whatever
    its chains do: a distance near 0 says that the completions pass by what was seen by more than the noise explains.

    Parameters
    ----------
    idata
        What ``infer`` returned.

    Returns
    -------
    dict
        ``"mean"``, ``"standard deviation"`` and ``"distance"``; NaN for a distance that is 0, of a model without noise.

    Raises
    ------
    ValueError
        If nothing is seen.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=10)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> list(check_of_fit(infer(model, seen, Exact(), draws=50, chains=2, progress=False)))
    ['mean', 'standard deviation', 'distance']
    """
    mask = group(idata, "constant_data")["mask"].to_numpy()
    if not mask.any():
        raise ValueError("no pixel is seen, so that there is nothing to compare with")
    observed = group(idata, "observed_data")["image"].to_numpy()[mask]
    replicates, completions = (
        group(idata, name)[variable].to_numpy()[..., mask].reshape(-1, observed.size)
        for name, variable in (("posterior_predictive", "image"), ("posterior", "completion"))
    )
    ours, theirs = (((x - completions) ** 2).mean(1) for x in (observed, replicates))
    found = {
        "mean": float((replicates.mean(1) >= observed.mean()).mean()),
        "standard deviation": float((replicates.std(1) >= observed.std()).mean()),
    }
    return found | {"distance": float((theirs >= ours).mean()) if theirs.any() else float("nan")}
