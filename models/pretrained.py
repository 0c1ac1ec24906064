"""Bundled networks: trained on public images, loaded without pickle and checked by digest.

Each set is a few safetensors files in ``networks/weights``, one a part (a decoder and its encoder, say) in half
precision or, where it is large, in 8 bits, a line each in ``SHA256SUMS``, and a card ``NAME.md`` that says how it was
trained and how good it is. Where the weights are random, those files are their means and another has their standard
deviations.

One's own are a folder: of ``saved.folders``, which ``write_prior`` writes, or of files as the bundled ones are, which
:func:`save` and :func:`save_parts` write. Every loader here takes either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from posterior_inpainting.models import networks
from posterior_inpainting.models.networks.weight_files import read_digests, read_tensors, write_tensors
from posterior_inpainting.models.saved.configs import CONFIG, read_config
from posterior_inpainting.models.saved.folders import read_card, read_prior, write_prior

__all__ = [
    "card",
    "is_prior",
    "load",
    "load_from",
    "load_part",
    "load_parts",
    "names",
    "posterior_scales",
    "read_prior",
    "save",
    "save_parts",
    "words",
    "write_prior",
]

#: What is written beside a network by itself.
_OURS = ("network", "configuration", "logarithms")


def names() -> tuple[str, ...]:
    """Return the name of every bundled set, as the list of digests has them.

    >>> "digits-vae-2d" in names()
    True
    """
    return tuple(sorted({file.split(".")[0] for file in read_digests(_bundled())}))


def load(name: str | Path) -> nn.Module:
    """Load a decoder, frozen, with its masked-input encoder as ``.encoder``, and the law of its codes if there is one.

    Parameters
    ----------
    name
        The name of a bundled prior, or a folder that :func:`save` or ``write_prior`` wrote.

    Returns
    -------
    Module
        z ``(*batch, latent)`` -> mean ``(*batch, channel, row, column)``; see ``MultilayerDecoder``.

    Raises
    ------
    ValueError
        For an unknown name, or weights that are truncated or differ from their recorded digest.

    Examples
    --------
    >>> import torch
    >>> decoder = load("digits-vae-2d")
    >>> tuple(decoder(torch.zeros(3, decoder.latent)).shape)
    (3, 1, 8, 8)
    """
    folder, stem = _place(name)
    if is_prior(folder):
        parts = load_parts(folder, "decoder", "encoder")
        return _together(parts["decoder"], parts["encoder"], parts.get("prior"), parts.get("domain"))
    return load_from(folder, stem)


def load_parts(name: str | Path, *needed: str) -> dict[str, nn.Module]:
    """Load every network of a bundled set, or of a folder that holds one's own, by its part's name.

    Raises
    ------
    ValueError
        As :func:`load`; or where one of the parts ``needed`` is not there.

    >>> sorted(load_parts("digits-vae-2d"))
    ['decoder', 'domain', 'encoder']
    >>> load_parts("digits-vae-2d", "discriminator")
    Traceback (most recent call last):
    ValueError: 'digits-vae-2d' holds decoder, domain, encoder; expected discriminator too
    """
    folder, stem = _place(name)
    if is_prior(folder):
        found = read_prior(folder).parts
        _check_parts(name, list(found), needed)
        return found
    digests = read_digests(folder)
    parts = [file[len(stem) :].split(".")[0] for file in digests if file.startswith(stem)]
    _check_parts(name, parts, needed)
    return {
        part: _load_part(folder / f"{stem}{part}.safetensors", digests)
        for part in parts
        if part != "posterior_scales"
    }


def load_part(folder: str | Path, stem: str, part: str) -> nn.Module:
    """Load one network that :func:`save_parts` wrote to ``folder`` under ``stem``, frozen."""
    path = Path(folder) / f"{stem}{part}.safetensors"
    return _load_part(path, read_digests(path.parent)).requires_grad_(False).eval()


def posterior_scales(name: str | Path) -> dict[str, Tensor]:
    """Load the standard deviations of random weights: path -> tensor, as :func:`load` does the means.

    Raises
    ------
    ValueError
        As :func:`load`; or if the weights of that name are not random.

    >>> posterior_scales("digits-vae-2d")
    Traceback (most recent call last):
    ValueError: ...digits-vae-2d.posterior_scales.safetensors is missing
    """
    folder, stem = _place(name)
    return read_tensors(folder / f"{stem}posterior_scales.safetensors", read_digests(folder))[0]


def load_from(folder: Path, stem: str = "") -> nn.Module:
    """Load what :func:`save` wrote to ``folder`` under ``stem``."""
    digests = read_digests(folder)
    decoder, encoder = (
        _load_part(folder / f"{stem}{part}.safetensors", digests) for part in ("decoder", "encoder")
    )
    carried = (folder / f"{stem}{part}.safetensors" for part in ("prior", "domain"))
    return _together(
        decoder, encoder, *(_load_part(path, digests) if path.name in digests else None for path in carried)
    )


def save(
    folder: str | Path,
    decoder: Any,
    encoder: Any,
    stem: str = "",
    posterior_scales: dict[str, Tensor] | None = None,
) -> None:
    """Write decoder and encoder in half precision with their digests, for :func:`load`.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    decoder, encoder
        Networks of ``models.networks``: they have a ``configuration()``.
    stem
        Put before each file's name, as ``"fashion-mnist-vae."``.
    posterior_scales
        Standard deviations of random weights, path -> tensor.

    >>> import tempfile
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(folder, MultilayerDecoder(2, (1, 8, 8)), MaskedEncoder(2, (1, 8, 8)))
    ...     load(folder).latent
    2
    """
    parts = {"decoder": decoder, "encoder": encoder}
    save_parts(
        folder, stem, parts if posterior_scales is None else parts | {"posterior_scales": posterior_scales}
    )


def words(name: str | Path, part: str) -> dict[str, str]:
    """Return what :func:`save_parts` was told to write beside a network, or the settings of a prior that are words.

    Raises
    ------
    ValueError
        As :func:`load`; or where there is no such part.

    >>> words("digits-vae-2d", "decoder")
    {}
    """
    folder, stem = _place(name)
    if is_prior(folder):
        return {
            word: value for word, value in read_config(folder)["settings"].items() if isinstance(value, str)
        }
    description = read_tensors(folder / f"{stem}{part}.safetensors", read_digests(folder))[1]
    return {word: value for word, value in description.items() if word not in _OURS}


def save_parts(
    folder: str | Path,
    stem: str,
    parts: Mapping[str, Any],
    words: Mapping[str, str] | None = None,
    bits: int = 16,
) -> None:
    """Write networks in half precision or 8 bits, standard deviations in 8 bits, with digests, for :func:`load_parts`.

    Parameters
    ----------
    folder, stem
        As for :func:`save`.
    parts
        Part -> network of ``models.networks`` with a ``configuration()``, or path -> tensor.
    words
        What else is to be known of the networks, written beside each of them; :func:`words` reads it.
    bits
        Of a weight, 16 or 8; see ``weight_files``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, content in parts.items():
        path = folder / f"{stem}{part}.safetensors"
        if not isinstance(content, nn.Module):
            write_tensors(path, content, {}, logarithmic=True)
            continue
        # A decoder may carry its encoder and the law of its codes, which are parts of their own.
        carried = ("encoder.", "law_of_codes.", "domain.") if "encoder" in parts and part != "encoder" else ()
        state = {k: v for k, v in content.state_dict().items() if not k.startswith(carried)}
        configuration: Any = content.configuration
        description = {"network": type(content).__name__, "configuration": json.dumps(configuration())}
        write_tensors(path, state, {**(words or {}), **description}, bits=bits)


def card(name: str | Path) -> str:
    """Return the card of a bundled prior, or of a prior in a folder: data, training command, measured quality.

    >>> card("digits-vae-2d").splitlines()[0]
    '# digits-vae-2d'
    """
    if isinstance(name, str) and name in names():
        return (_bundled() / f"{name}.md").read_text()
    if is_prior(name):
        return read_card(name)
    raise ValueError(f"unknown prior {str(name)!r}; there are {', '.join(names())}, or the folder of a prior")


def is_prior(folder: str | Path) -> bool:
    """Whether a folder says that it is one of ``saved.folders``; reading it says whether it is whole.

    >>> is_prior("/nowhere")
    False
    """
    return (Path(folder) / CONFIG).is_file()


def _place(name: str | Path) -> tuple[Path, str]:
    """Folder and stem of the files of a bundled prior, or of a folder of one's own."""
    if isinstance(name, str) and name in names():
        return _bundled(), f"{name}."
    if Path(name).is_dir():
        return Path(name), ""
    raise ValueError(
        f"unknown prior {str(name)!r}; there are {', '.join(names())}, or a folder with saved weights"
    )


def _bundled() -> Path:
    return Path(str(resources.files("posterior_inpainting.models.networks"))) / "weights"


def _check_parts(name: str | Path, parts: list[str], needed: tuple[str, ...]) -> None:
    missing = [part for part in needed if part not in parts]
    if missing:
        raise ValueError(f"{str(name)!r} holds {', '.join(parts)}; expected {', '.join(missing)} too")


def _together(
    decoder: Any, encoder: nn.Module, law_of_codes: nn.Module | None, domain: nn.Module | None
) -> nn.Module:
    """Return the decoder, frozen, with what it carries."""
    decoder.law_of_codes, decoder.domain = law_of_codes, domain
    decoder.requires_grad_(False).eval()
    decoder.encoder = encoder.eval()
    return decoder


def _load_part(path: Path, digests: dict[str, str]) -> nn.Module:
    state, description = read_tensors(path, digests)
    kind = description.get("network")
    if kind not in networks.__all__:
        raise ValueError(f"{path} holds a {kind!r}; expected one of {', '.join(networks.__all__)}")
    module = getattr(networks, kind)(**json.loads(description["configuration"]))
    module.load_state_dict(state)
    return module
