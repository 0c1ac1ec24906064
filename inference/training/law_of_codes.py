"""Fitting the law of the codes that an encoder gives to images, after a decoder was trained."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.networks.code_mixture import CodeMixture
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["fit_law_of_codes"]


def fit_law_of_codes(
    encoder: Any, images: Image, components: int, streams: Streams, masks: Mask | None = None
) -> CodeMixture:
    """Fit a mixture of Gaussians to draws of q(z | x), one an image, by expectation maximisation.

    Ghosh et al. 2020, *From Variational to Deterministic Autoencoders*, section 4: codes of real images are rarely
    standard normal as a whole, and where there are none a decoder makes no image.

    Parameters
    ----------
    encoder
        From images and a mask to location and scale, ``(n, latent)`` both.
    images
        ``(n, channel, row, column)``.
    components
        How many Gaussians, each with a full covariance.
    streams
        Of the draws, and of where the fit begins.
    masks
        What is seen of each image; all if not given.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MaskedEncoder
    >>> images = torch.rand(200, 1, 8, 8)
    >>> mixture = fit_law_of_codes(MaskedEncoder(2, (1, 8, 8), (4,)), images, 3, Streams(0))
    >>> mixture.components, mixture.latent
    (3, 2)
    """
    from sklearn.mixture import GaussianMixture

    if masks is None:
        masks = images.new_ones((), dtype=torch.bool).expand(images.shape)
    with torch.no_grad():
        batches = zip(images.split(500), masks.split(500), strict=True)
        pairs = [encoder(*batch) for batch in batches]
    loc, scale = (torch.cat(part).cpu() for part in zip(*pairs, strict=True))
    noise = torch.randn(loc.shape, generator=streams.generator("codes"))
    fitted = GaussianMixture(
        components,
        reg_covar=1e-3,
        max_iter=30,
        init_params="kmeans",
        random_state=streams.number("mixture") % 2**32,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could climb further
        fitted.fit((loc + scale * noise).double().numpy())
    covariances = torch.from_numpy(fitted.covariances_)
    return CodeMixture(components, loc.shape[-1]).set(
        torch.from_numpy(fitted.weights_),
        torch.from_numpy(fitted.means_),
        torch.linalg.cholesky(0.5 * (covariances + covariances.mT)),
    )
