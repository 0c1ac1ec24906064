"""The model that a prior in a folder is the prior of."""

from __future__ import annotations

from typing import Any

from posterior_inpainting.models.autoregressive.pixel_laws import law_from
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.diffusion import DiffusionPrior
from posterior_inpainting.models.expert_field import ExpertField
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.pixel_constrained import PixelConstrained
from posterior_inpainting.models.pluralistic import PluralisticJoint
from posterior_inpainting.models.saved.folders import SavedPrior
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["model_of"]


def model_of(prior: SavedPrior, image_shape: ImageShape | None = None) -> ImageModel:
    """Make the model of a prior that ``read_prior`` read, as the bundled one of its kind is made.

    Parameters
    ----------
    prior
        What is in the folder. Its ``settings`` are further arguments of the model.
    image_shape
        ``(channel, row, column)`` of the images to complete, where it takes any size; otherwise its own.

    Returns
    -------
    ImageModel
        ``LatentCode`` of ``vae`` and ``gan``, ``PluralisticJoint``, ``PixelConstrained``, ``LinearGaussian``,
        ``DiffusionPrior`` or ``ExpertField``.

    Raises
    ------
    ValueError
        For images of another shape than the prior's, none given where it takes any, or settings that do not fit.

    Examples
    --------
    >>> import tempfile
    >>> from posterior_inpainting.models.networks import Denoiser
    >>> from posterior_inpainting.models.saved.folders import read_prior, write_prior
    >>> said = {"preprocessing": {"patches": 16, "channels": 1}, "data": {}, "figures": {}, "card": "# Mine"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_prior(folder, kind="diffusion", parts={"denoiser": Denoiser(features=(8, 16))}, **said)
    ...     model_of(read_prior(folder), (1, 20, 24)).image_shape
    (1, 20, 24)
    """
    shape = _shape(prior, image_shape)
    parts: dict[str, Any] = prior.parts
    settings = dict(prior.config["settings"])
    if prior.kind == "diffusion":
        settings = _CHAIN | ({} if all(prior.image_shape) else _CHAIN_OF_ANY_SIZE) | settings
    try:
        return _made(prior.kind, parts, shape, settings)
    except (TypeError, AttributeError) as error:
        raise ValueError(
            f"parts or settings={settings!r:.60} do not fit a {prior.kind} prior: {error}"
        ) from None


def _made(kind: str, parts: dict[str, Any], shape: ImageShape, settings: dict[str, Any]) -> ImageModel:
    if kind in ("vae", "gan"):
        decoder = parts["decoder"]
        decoder.encoder, decoder.law_of_codes = parts["encoder"], parts.get("prior")
        decoder.domain = parts.get("domain")
        return LatentCode(decoder, **settings)
    if kind == "pluralistic":
        model = PluralisticJoint(parts["decoder"], parts["encoder"], **settings)
        model.decoder.requires_grad_(False)  # what the posterior is of; the guide may be fitted to an image
        return model
    if kind == "pixels":
        law = settings.pop("law", None)
        law = None if law is None else law_from(law)
        beside = parts.get("constraint"), parts.get("encoder")
        made = PixelConstrained(parts["prior"], beside[0], law=law, encoder=beside[1], **settings)
        return made.requires_grad_(False).eval()
    if kind == "linear":
        return parts["linear"]
    if kind == "experts":
        return ExpertField(parts["experts"].requires_grad_(False), shape, **settings)
    return DiffusionPrior(parts["denoiser"].requires_grad_(False), shape, **settings)


def _shape(prior: SavedPrior, given: ImageShape | None) -> ImageShape:
    own = prior.image_shape
    if given is None:
        if not all(own):
            raise ValueError(
                f"the prior takes {own[0]} channel(s) of any size; expected image_shape=(channel, row, column)"
            )
        return own
    if given[0] != own[0] or (all(own) and tuple(given) != own):
        size = " x ".join(str(extent or "any") for extent in own)
        raise ValueError(f"image_shape={tuple(given)}; the prior takes {size}")
    return tuple(given)


#: Of the reverse chain, where the prior's settings say nothing else.
_CHAIN: dict[str, Any] = {"steps": 40, "noise": 0.02, "lowest": 0.005, "highest": 10.0}
#: So much noise that the mean of a wide hole says nothing either.
_CHAIN_OF_ANY_SIZE: dict[str, Any] = {"noise": 0.01, "highest": 30.0}
