"""Does the prior know this image? What was found when the posterior was inferred, or anew for a model."""

from __future__ import annotations

import torch

from posterior_inpainting.inference.results.containers import group
from posterior_inpainting.inference.results.fit_attributes import fit_of_attributes
from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.fit_of_seen import Fit, fits_of_seen

__all__ = ["Fit", "fit", "words_of_fit"]


def fit(posterior, model: Abilities | None = None) -> Fit | None:
    """Return how strange the seen pixels are among images of the prior's domain behind the same mask.

    A conformal p-value (Vovk et al. 2005) of log p(seen pixels) and of a network that knows the prior's domain from
    made-up images, see ``models.fit_of_seen``: under 5 % of the domain's own images have p < .05, whatever the mask,
    the model and its noise. The draws are not read: chains that converged say nothing of whether the prior fits.

    Parameters
    ----------
    posterior
        What ``infer`` or ``infer_many`` returned, also from a file: they keep what was found.
    model
        To find it anew under, another model or one that had no images held back then.

    Returns
    -------
    Fit or None
        ``None`` for a prior without images held back.

    Examples
    --------
    >>> from posterior_inpainting.inference import Exact, infer
    >>> from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
    >>> from posterior_inpainting.models.networks.domain_judge import DomainJudge
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> seen = Observation(images[0], observations.half(model.image_shape, hide="bottom"))
    >>> posterior = infer(model, seen, Exact(), draws=50, chains=2, progress=False)
    >>> fit(posterior) is None
    True
    >>> model.domain = DomainJudge(model.image_shape, references=99, widths=(4,))
    >>> fit(posterior, model).references
    99
    """
    if model is None:
        return fit_of_attributes(posterior.attrs)
    mask = torch.as_tensor(group(posterior, "constant_data")["mask"].to_numpy().copy())
    image = torch.as_tensor(group(posterior, "observed_data")["image"].to_numpy().copy())
    found = fits_of_seen(model, torch.where(mask, image, 0.0)[None], mask)
    return None if found is None else found[0]


def words_of_fit(found: Fit | None) -> str:
    """Return what a verdict says of an observation that the prior does not know, ``""`` of others.

    >>> print(words_of_fit(Fit(0.001, {}, 999)))
    But the seen pixels are unlike anything this prior was trained on (p = .001): widen the noise or choose another ...
    >>> words_of_fit(Fit(0.2, {}, 999)), words_of_fit(None)
    ('', '')
    """
    if found is None or not found.is_alarm:
        return ""
    return (
        f"But the seen pixels are unlike anything this prior was trained on ({found}): widen the noise or choose "
        "another prior."
    )
