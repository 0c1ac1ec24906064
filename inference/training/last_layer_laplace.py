r"""`last_layer_laplace`: a Gaussian over the weights of a trained decoder's last layer, in closed form.

MacKay 1992, *A Practical Bayesian Framework for Backpropagation Networks*; of the last layer alone Kristiadi, Hein &
Hennig 2020, *Being Bayesian, Even Just a Bit, Fixes Overconfidence in ReLU Networks*, and Daxberger et al. 2021,
*Laplace Redux*. With inputs :math:`\phi_r` of the layer, outputs :math:`o_{rg} = w_g^\top \phi_r`, the link's slope
:math:`m'` and the Fisher information :math:`I` of a pixel's law in its mean, the Gauss-Newton curvature is

.. math:: \Lambda_g = \mathrm{diag}(s_g)^{-2} + \sum_r m'(o_{rg})^2\, I_{rg}\, \phi_r \phi_r^\top,

and I is :math:`1 / \sigma^2` of a normal pixel. The sum is over images with a code each, drawn by the encoder. Where
link and noise are linear and normal this is Bayesian linear regression, and exact.

laplace-torch is not used: its regression has one noise for all data where a decoder has a scale for each pixel of each
image, and its full last-layer curvature is one matrix of all pixels' weights where here it falls into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.censored_normal import log_normal_cdf
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.networks.fully_connected import link_of
from posterior_inpainting.models.random_weights.last_layer import last_layer_of
from posterior_inpainting.models.random_weights.last_layer_gaussian import LastLayerGaussian
from posterior_inpainting.models.random_weights.layers import Prior
from posterior_inpainting.models.random_weights.weight_priors import FanIn, law_of_weights
from posterior_inpainting.models.shapes import Code, Image

__all__ = ["information", "last_layer_laplace"]

#: Rows of the regression at a time.
_ROWS = 4096


def last_layer_laplace(
    decoder: Any,
    images: Image,
    *,
    codes: Code | None = None,
    prior: Prior | None = None,
    steps: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> LastLayerGaussian:
    """Fit a Gaussian to the posterior of the weights behind the pixel means, all else as it was trained.

    Costs a pass over the images, and for each row of the regression and each output the square of the features; keeps
    that square for each output: 784 pixels of 256 units, 207 MB. Directions of which no image says anything keep their
    prior.

    Parameters
    ----------
    decoder
        A trained ``MultilayerDecoder``, ``Generator`` or ``ConvolutionalDecoder``; it stays as it is.
    images
        ``(image, channel, row, column)`` in [0, 1] that it was trained on.
    codes
        ``(image, latent)``; by default one draw each of the decoder's own ``encoder``, which sees every pixel.
    prior
        Normal law of a single weight; by default ``FanIn(gain=3.0)``, as for ``BayesianDecoder``.
    steps
        Gauss-Newton steps from the trained weights to the mean, none of them damped. With none the trained weights are
        taken for the mode, as is usual; with one, the mean is exact where the posterior is a Gaussian.
    seed
        Of the codes.
    progress
        Whether to show a bar.

    Raises
    ------
    ValueError
        For another decoder, images or codes of a wrong shape, no codes and no encoder, a prior that is not normal, or
        a negative number of steps.

    Examples
    --------
    >>> from posterior_inpainting.models import WeightDraws, datasets, pretrained
    >>> decoder = pretrained.load("digits-vae-2d")
    >>> law = last_layer_laplace(decoder, datasets.load("digits", split="train"), progress=False)
    >>> len(WeightDraws(law, count=4).networks)
    4
    """
    if steps < 0:
        raise ValueError(f"steps={steps}; expected at least 0")
    if images.shape[1:] != tuple(decoder.image_shape):
        raise ValueError(
            f"images have shape {tuple(images.shape)}; expected (image, {', '.join(map(str, decoder.image_shape))})"
        )
    codes = _drawn(decoder, images, seed) if codes is None else codes
    if codes.shape != (len(images), decoder.latent):
        raise ValueError(f"codes have shape {tuple(codes.shape)}; expected {(len(images), decoder.latent)}")
    regression = _Regression(decoder, images, codes, FanIn(gain=3.0) if prior is None else prior, progress)
    mean = regression.trained
    precision, slope = regression.curvature(mean)
    for _ in range(steps):
        mean = mean + torch.linalg.solve(precision, slope)
        precision, slope = regression.curvature(mean)
    return LastLayerGaussian(decoder, mean.to(regression.dtype), precision)


class _Regression:
    """The log posterior of the last layer's weights, in double precision: directions that no image fixes are many."""

    def __init__(self, decoder: Any, images: Image, codes: Code, prior: Prior, progress: bool):
        self.decoder, self.images, self.codes, self.progress = decoder, images, codes, progress
        self.layer = last_layer_of(decoder)
        parameters = {path: decoder.get_parameter(path).detach() for path in self.layer.paths}
        self.dtype = parameters[self.layer.paths[0]].dtype
        laws = {path: law_of_weights(prior, path, parameter) for path, parameter in parameters.items()}
        for path, law in laws.items():
            if not isinstance(law, dist.Normal):
                raise ValueError(f"the prior of {path!r} is a {type(law).__name__}; expected a normal law")
        self.trained = self.layer.table(parameters).double()
        self.centre, variance = (
            self.layer.table({path: of(law) for path, law in laws.items()}).double()
            for of in (lambda law: law.mean, lambda law: law.variance)
        )
        self.prior_precision = 1 / variance

    def curvature(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Gauss-Newton precision ``(output, feature, feature)`` and the log posterior's gradient."""
        precision = torch.diag_embed(self.prior_precision)
        slope = self.prior_precision * (self.centre - table)
        batches = torch.arange(len(self.images), device=self.images.device).split(
            max(1, _ROWS // self.layer.rows)
        )
        for which in progress_bar(batches, desc="curvature", disable=not self.progress, unit="batch"):
            inputs, weights, slopes = self._rows(which, table)
            for of_output, weight in zip(precision, weights.T, strict=True):
                of_output.addmm_((inputs * weight[:, None]).T, inputs)
            slope = slope + slopes.T @ inputs
        return precision, slope

    def _rows(self, which: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, curvature and slope in the outputs, of some images."""
        z, images = self.codes[which], self.images[which]
        with torch.no_grad():
            inputs = self.layer.inputs(z).double()
            scales = self.decoder.mean_and_scale(z)[1].expand(images.shape)
        seen, scale = (self.layer.arrange(values).double() for values in (images, scales))
        with torch.enable_grad():
            raw = (inputs @ table.T).requires_grad_()
            mean = link_of(self.decoder.likelihood)(raw)
            log_density = likelihood_of(self.decoder)(mean, scale).log_prob(seen).sum()
            (of_link,) = torch.autograd.grad(mean.sum(), raw, retain_graph=True)
            (slopes,) = torch.autograd.grad(log_density, raw)
        fisher = information(self.decoder.likelihood)(mean.detach(), scale)
        return inputs, of_link.square() * fisher, slopes


def information(likelihood: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the Fisher information of a pixel's law in its mean, a function of mean and scale.

    Raises
    ------
    ValueError
        For another likelihood than ``"normal"`` and ``"censored_normal"``.

    >>> mean, scale = torch.tensor([0.5, 0.0, -1.0]), torch.tensor(0.1)
    >>> [round(float(value), 2) for value in information("censored_normal")(mean, scale)]  # the last is surely black
    [100.0, 81.83, 0.0]
    """
    laws = {"normal": _of_normal, "censored_normal": _of_censored_normal}
    if likelihood not in laws:
        raise ValueError(f"likelihood={likelihood!r}; expected one of {', '.join(laws)}")
    return laws[likelihood]


def _of_normal(mean: Tensor, scale: Tensor) -> Tensor:
    return scale.square().reciprocal().expand(mean.shape)


def _of_censored_normal(mean: Tensor, scale: Tensor) -> Tensor:
    """Of u = (x - mean) / scale: E u^2 between the ends, and at an end the square of the hazard."""
    between, at_ends = torch.zeros_like(mean), torch.zeros_like(mean)
    for end, sign in ((-mean / scale, -1.0), ((1 - mean) / scale, 1.0)):
        log_density = dist.Normal(torch.zeros_like(end), 1.0).log_prob(end)
        between = between + sign * (torch.special.ndtr(end) - end * log_density.exp())
        at_ends = at_ends + (2 * log_density - log_normal_cdf(-sign * end)).exp()
    return (between + at_ends).clamp(min=0) / scale.square()


def _drawn(decoder: Any, images: Image, seed: int) -> Code:
    """Return a code of each image by the decoder's own encoder."""
    if decoder.encoder is None:
        raise ValueError(f"{type(decoder).__name__} carries no encoder; give codes=...")
    found = []
    noise = Streams(seed).generator("codes", device=images.device)
    with torch.no_grad():
        for part in images.split(_ROWS):
            loc, scale = decoder.encoder(part, torch.ones_like(part, dtype=torch.bool))
            found.append(
                loc + scale * torch.randn(loc.shape, generator=noise, device=loc.device, dtype=loc.dtype)
            )
    return torch.cat(found)
