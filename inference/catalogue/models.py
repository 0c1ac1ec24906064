"""The models by name, each with its one default method and settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.catalogue.compared import COMPARED
from posterior_inpainting.inference.catalogue.entry import Entry
from posterior_inpainting.inference.catalogue.further import FURTHER
from posterior_inpainting.inference.catalogue.own_priors import entry_of, is_path
from posterior_inpainting.inference.catalogue.priors import PRIORS
from posterior_inpainting.models.observations import Observation
from posterior_inpainting.models.shapes import ImageShape

__all__ = ["APPROACHES", "MODELS", "approach", "build", "check_shape_of", "entry", "fitting"]

#: Every model by name.
MODELS: dict[str, Entry] = {one.name: one for one in (*COMPARED, *FURTHER)}

#: Names of those that the README compares, and ``compare`` where it is told no others.
APPROACHES: tuple[str, ...] = tuple(one.name for one in COMPARED)


def entry(name: str | Path) -> Entry:
    """Return what the catalogue says of a name, or of the folder of a prior.

    Raises ``ValueError`` for an unknown name, and for a folder that holds no prior.

    >>> entry("gan").settings
    'Auto(), at most 2000 draws x 16'
    """
    name = str(name)
    if name in MODELS:
        return MODELS[name]
    if name in PRIORS:
        users = [one.name for one in MODELS.values() if name in one.priors]
        raise ValueError(
            f"{name!r} is a bundled prior, and no model; the models of it are {', '.join(users)}"
        )
    if is_path(name):
        return entry_of(name)
    raise ValueError(f"unknown model {name!r}; there are {', '.join(MODELS)}, and folders of priors")


def fitting(shape: ImageShape, measured: bool = False) -> tuple[str, str]:
    """Return the model for images of a shape where none is named, and why it is that one.

    Parameters
    ----------
    shape
        ``(channel, row, column)``.
    measured
        Whether what is known of them is a ``Measurement``.

    >>> fitting((3, 480, 640))
    ('photographs-diffusion', 'a prior of photographs, as the image is 3 x 480 x 640')
    >>> fitting((1, 8, 8))
    ('gaussian-process', 'fitted to the seen pixels, as the image is 1 x 8 x 8')
    """
    size = " x ".join(map(str, shape))
    if tuple(shape) == MODELS["vae"].shape:
        return "vae", f"a prior of Fashion-MNIST, as the image is {size}"
    if measured and shape[0] == 3:
        return (
            "photographs-experts",
            f"a prior of photographs that takes measurements, as the image is {size}",
        )
    if measured:
        return "deep-image-prior", f"an untrained network, as the image is {size}"
    if shape[0] in (1, 3) and min(shape[1:]) >= MODELS["photographs-diffusion"].least:
        return "photographs-diffusion", f"a prior of photographs, as the image is {size}"
    return "gaussian-process", f"fitted to the seen pixels, as the image is {size}"


def check_shape_of(name: str | Path, shape: ImageShape, measured: bool = False) -> None:
    """Raise ``ValueError`` where a model takes no images of a shape, or no ``measured`` ones, with those that do.

    >>> check_shape_of("vae", (1, 8, 8))
    Traceback (most recent call last):
    ...
    ValueError: the image is 1 x 8 x 8; vae takes 1 x 28 x 28. Models that take it: gaussian-process, ...
    """
    asked, size = entry(name), " x ".join(map(str, shape))
    if asked.takes(shape) and (asked.measured or not measured):
        return
    fit = [one.name for one in MODELS.values() if one.takes(shape) and (one.measured or not measured)]
    takes = asked.shapes if not asked.takes(shape) else f"{asked.shapes} behind masks, and no measurement"
    raise ValueError(f"the image is {size}; {name} takes {takes}. Models that take it: {', '.join(fit)}")


def approach(name: str | Path, root: str | Path | None = None) -> Approach:
    """Return model, method and draws of a name; nothing is loaded before an observation comes.

    Parameters
    ----------
    name
        A key of ``MODELS``, or the folder of a prior.
    root
        Folder of the data set, for models that are fitted to one and where it is not found by itself.

    Raises
    ------
    ValueError
        For an unknown name.

    Examples
    --------
    >>> approach("vae").chains
    16
    """
    return entry(name).approach(root)


def build(name: str | Path, observation: Observation, root: str | Path | None = None) -> Approach:
    """Return model, method and draws of a name for one observation, with the model made.

    Parameters
    ----------
    name, root
        As for :func:`approach`.
    observation
        What is seen of the image.

    Raises
    ------
    ValueError
        For an unknown name, or an observation that the model cannot be made for.

    Examples
    --------
    >>> from posterior_inpainting.inference import infer
    >>> from posterior_inpainting.models import datasets, observations
    >>> image = datasets.load("fashion-mnist-samples")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> chosen = build("vae-amortised", seen)
    >>> posterior = infer(chosen.model, seen, chosen.method, draws=chosen.draws, chains=1, progress=False)
    >>> posterior.posterior.sizes["draw"]
    400
    """
    check_shape_of(name, observation.shape)
    found = approach(name, root).made_for(observation)
    return replace(found, draws=entry(name).draws_for(observation.shape))
