r"""Whether a prior knows what is seen of an image: its seen pixels ranked among those of images of the prior's domain.

Every image held back with a prior is hidden behind *the very mask* of the observation, and one that is seen as it is of
their kind if its rank among them is any with equal probability: the p-value

.. math:: p = \frac{1 + \#\{k : T_k \ge T\}}{n + 1}

holds for every mask and every statistic T, however well the prior fits (conformal prediction, Vovk et al. 2005,
*Algorithmic Learning in a Random World*). T adds up what each of these says, in logarithms of the share of all n + 1
images that are as strange (Fisher 1925): log p(seen pixels) under the prior, by importance sampling from the guide, and
the logit of a network that tells the domain from made-up images. The first alone takes smooth images of any domain for
its own (Nalisnick et al. 2019, *Do Deep Generative Models Know What They Don't Know?*).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from posterior_inpainting.models.abilities import Abilities
from posterior_inpainting.models.base import frozen
from posterior_inpainting.models.latent_code import LatentCode
from posterior_inpainting.models.networks.domain_judge import DomainJudge
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["Fit", "fits_of_seen", "judge_of"]

#: Codes an image from the guide, and images at a time.
_CODES, _BATCH = 4, 50


@dataclass(frozen=True)
class Fit:
    """How an observation's seen pixels rank among those of images of the prior's domain.

    Parameters
    ----------
    p
        Share of the domain's images that are at least as strange behind this mask, the observation among them:
        below .05 for one in twenty images of the domain.
    statistics
        Name -> the same share by one statistic alone.
    references
        Number of the domain's images.

    >>> str(Fit(0.25, {"log p(seen)": 0.25}, references=3)), Fit(0.01, {}, 999).is_alarm
    ('p = .25', True)
    """

    p: float
    statistics: dict[str, float] = field(default_factory=dict)
    references: int = 0

    @property
    def is_alarm(self) -> bool:
        """Whether the seen pixels are stranger than those of 19 in 20 images of the domain."""
        return self.p <= 0.05

    def __str__(self) -> str:
        """Return p as it is written in a sentence."""
        digits = 2 if self.p > 0.05 else 3
        return f"p = {f'{self.p:.{digits}f}'.removeprefix('0')}"


def judge_of(model: Abilities) -> DomainJudge | None:
    """Return the network and the images of a model's domain, its decoder's or its own, or ``None``.

    >>> from posterior_inpainting.models import LinearGaussian
    >>> judge_of(LinearGaussian(torch.ones(4, 1), torch.zeros(1, 2, 2), 0.1)) is None
    True
    """
    owner = frozen(model, "decoder") if isinstance(model, LatentCode) else model
    return frozen(owner, "domain") if isinstance(owner, nn.Module) else None


def fits_of_seen(model: Abilities, images: Image, mask: Mask) -> list[Fit] | None:
    """Rank some images' seen pixels, behind one mask, among those of the images held back with the model's prior.

    Parameters
    ----------
    model
        A model whose decoder carries a ``DomainJudge`` as ``domain``, or any that has one itself.
    images
        ``(n, channel, row, column)``; hidden pixels are not read.
    mask
        ``(channel, row, column)``, ``True`` = seen.

    Returns
    -------
    list of Fit or None
        One an image; ``None`` for a model without images held back.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets, pretrained
    >>> model = LatentCode(pretrained.load("digits-vae-2d"))
    >>> model.decoder.domain = DomainJudge((1, 8, 8), references=9, widths=(4,))
    >>> mask = torch.ones(1, 8, 8, dtype=torch.bool)
    >>> [fit.references for fit in fits_of_seen(model, datasets.load("digits")[:2], mask)]
    [9, 9]
    """
    judge = judge_of(model)
    if judge is None:
        return None
    references = judge.references
    if not mask.any():
        return [Fit(1.0, references=len(references)) for _ in images]  # all images look alike
    shown = torch.cat([images.to(references), references])
    seen = mask.to(references.device).expand(references.shape[1:])
    shown = torch.where(seen, shown, 0.0)
    with torch.no_grad():
        strange = {"of no image of the domain, logit": judge(shown, seen)}
        if isinstance(model, LatentCode) and model.guide_is_trained:
            evidence = _log_evidence(model, shown, seen)
            if evidence is not None:
                strange = {"log p(seen)": -evidence} | strange
    count = len(images)
    return [_ranked({name: (v[i], v[count:]) for name, v in strange.items()}) for i in range(count)]


def _log_evidence(model: LatentCode, images: Image, mask: Mask) -> Tensor | None:
    """Return the importance-weighted bound on log p(seen pixels), ``(n,)``, with the same noise for every image.

    ``None`` where the images held back are outside of what the model's law of pixels knows, black and white say.
    """
    encoder = frozen(model, "encoder")
    noise = torch.randn(_CODES, model.latent, generator=torch.Generator("cpu").manual_seed(0)).to(images)
    found = []
    for some in images.split(_BATCH):
        loc, scale = (part.unsqueeze(1) for part in encoder(some, mask.expand(some.shape)))
        z = loc + scale * noise
        density = model.log_densities(some, mask)
        if density is None:
            law = model.pixel_law(z)
            if not bool(law.support.check(some.unsqueeze(1)).all()):
                return None
            prior, likelihood = (
                model.prior().log_prob(z),
                (law.log_prob(some.unsqueeze(1)) * mask).sum((-3, -2, -1)),
            )
        else:
            prior, likelihood = density({"z": z})
        guide = torch.distributions.Normal(loc, scale).log_prob(z).sum(-1)
        found.append((prior + likelihood - guide).logsumexp(1) - math.log(_CODES))
    return torch.cat(found)


def _ranked(strange: dict[str, tuple[Tensor, Tensor]]) -> Fit:
    """Rank an observation among the references, all treated alike, from how strange each is by every statistic."""
    shares = {name: _shares(torch.cat([ours[None], theirs])) for name, (ours, theirs) in strange.items()}
    total = -torch.stack([share.log() for share in shares.values()]).sum(0)
    # In single precision: what is equal but for rounding counts as equal, to the observation's favour.
    return Fit(
        float(_shares(total.float())[0]),
        {name: float(share[0]) for name, share in shares.items()},
        len(total) - 1,
    )


def _shares(values: Tensor) -> Tensor:
    """Return of each value the share of all values that are at least as large; one that is no number is the largest."""
    values = torch.nan_to_num(values.double(), nan=math.inf)
    ordered = values.sort()[0]
    return (len(values) - torch.searchsorted(ordered, values)).double() / len(values)
