"""The networks of a prior as tensors and descriptions that can be stored, and made again of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from posterior_inpainting.models import networks
from posterior_inpainting.models.linear_gaussian import LinearGaussian
from posterior_inpainting.models.networks.decoder import Decoder
from posterior_inpainting.models.saved.configs import CONFIG, KINDS

__all__ = ["check_parts", "description_of", "made_of", "shape_of", "tensors_of"]

#: What the first part of a kind is.
_MAIN: dict[str, type[nn.Module]] = {
    "decoder": Decoder,
    "prior": networks.GatedPixelCNN,
    "linear": LinearGaussian,
    "denoiser": networks.Denoiser,
    "experts": networks.Experts,
}


def tensors_of(parts: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return the tensors of all parts, ``part/parameter``; ``ValueError`` for one that half precision cannot hold.

    >>> sorted(tensors_of({"experts": networks.Experts(channels=1)}))
    ['experts/filters', 'experts/raw_weights']
    """
    found = {}
    for part, module in parts.items():
        # A decoder may carry its encoder and the law of its codes, which are parts of their own.
        carried = ("encoder.", "law_of_codes.", "domain.") if part == "decoder" else ()
        for name, value in module.state_dict().items():
            if not name.startswith(carried):
                if not value.half().isfinite().all():
                    raise ValueError(
                        f"{part}/{name} is not finite in half precision; expected finite weights"
                    )
                found[f"{part}/{name}"] = value
    return found


def description_of(part: str, module: Any) -> dict[str, Any]:
    """Return the class of a part and what it is made with; ``ValueError`` for one that could not be made again.

    >>> description_of("decoder", nn.Linear(1, 1))
    Traceback (most recent call last):
    ValueError: decoder is a Linear; expected a LinearGaussian or one of CodeMixture, ...
    """
    if isinstance(module, LinearGaussian):
        return {"network": "LinearGaussian", "configuration": {}}
    if type(module).__name__ not in networks.__all__:
        raise ValueError(
            f"{part} is a {type(module).__name__}; expected a LinearGaussian or one of {', '.join(networks.__all__)}"
        )
    return {"network": type(module).__name__, "configuration": module.configuration()}


def made_of(folder: Path, part: str, description: Any, state: dict[str, Tensor]) -> nn.Module:
    """Make a network of its description, and give it its weights.

    Parameters
    ----------
    folder, part
        What it is, for errors.
    description
        As :func:`description_of` returned it, or whatever else a file says.
    state
        Tensors by parameter.

    Raises
    ------
    ValueError
        For a class that this version does not know, and weights that do not fit: in one line.

    >>> made_of(Path("mine"), "experts", {"network": "Experts", "configuration": {}}, {})
    Traceback (most recent call last):
    ValueError: mine: the weights of experts do not fit its config.json: Error(s) in loading state_dict for Experts: ...
    """
    name = description.get("network") if isinstance(description, dict) else None
    if name not in ("LinearGaussian", *networks.__all__):
        raise ValueError(
            f"{folder / CONFIG} says that {part} is a {name!r}, which this version does not know"
        )
    try:
        if name == "LinearGaussian":
            return LinearGaussian(**state).eval()
        module = getattr(networks, name)(**description["configuration"])
        module.load_state_dict(state)
    except Exception as error:  # of a configuration that anyone wrote, a network may raise anything
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder}: the weights of {part} do not fit its {CONFIG}: {reason}") from None
    return module.eval()


def check_parts(kind: str, parts: Mapping[str, nn.Module], folder: Path) -> None:
    """Raise ``ValueError`` for an unknown kind, and for parts that one of that kind has not.

    >>> check_parts("vae", {}, Path("mine"))
    Traceback (most recent call last):
    ValueError: mine holds nothing; a vae prior has decoder, encoder too
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; expected one of {', '.join(KINDS)}")
    missing = [part for part in KINDS[kind] if part not in parts]
    if missing:
        raise ValueError(
            f"{folder} holds {', '.join(parts) or 'nothing'}; a {kind} prior has {', '.join(missing)} too"
        )
    first = KINDS[kind][0]
    if not isinstance(parts[first], _MAIN[first]):
        raise ValueError(
            f"{first} is a {type(parts[first]).__name__}; expected a {_MAIN[first].__name__} of a {kind} prior"
        )


def shape_of(kind: str, parts: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> list[int]:
    """Return shape of the images, rows and columns 0 for any.

    >>> shape_of("experts", {"experts": networks.Experts(channels=3)}, {"patches": 32})
    [3, 0, 0]
    """
    main = parts[KINDS[kind][0]]
    if kind not in ("diffusion", "experts"):
        return list(main.image_shape)
    whole = main.size if kind == "diffusion" else None
    size = preprocessing.get("size") if whole is None else whole
    if size is None or (whole is None and preprocessing.get("patches")):
        return [main.channels, 0, 0]
    if not isinstance(size, (list, tuple)) or [type(one) for one in size] != [int, int]:
        raise ValueError(f"size={size!r:.60} of the preprocessing; expected (rows, columns) or None")
    return [main.channels, *size]
