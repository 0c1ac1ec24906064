r"""The published objective of pluralistic completion, as a loss for `train`: two paths, two discriminators.

Zheng, Cham & Cai 2019, *Pluralistic Image Completion*, equations 6 to 10. For the paths of ``PluralisticTwoPath``, with
decoded images :math:`x^r_k` (reconstructive) and :math:`x^g_k` (generative) at scales k, truth x and mask M,

.. math:: L = w_d \left( \overline{\mathrm{KL}}[q \,\|\, N(0, s^2)] + \overline{\mathrm{KL}}[\bar q \,\|\, p] \right)
          + w_x \sum_k \left( \overline{|x_k - x^r_k|} + \overline{M_k |x_k - x^g_k|} \right)
          + w_a \overline{(D_2(x^g) - 1)^2} + w_f \overline{\|f_1(x) - f_1(x^r)\|^2}.

A bar over a term is a mean over entries, over q it stops the gradient; f_1 are the hidden layers of discriminator D_1.
Both discriminators learn by least squares (Mao et al. 2017), one step of theirs before each of the model's.

Because the divergence is a mean over the entries of z, and the error one over pixels, what a nat costs depends on how
many entries z has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.models.base import TrainingModel
from posterior_inpainting.models.networks.patch_discriminator import PatchDiscriminator
from posterior_inpainting.models.pluralistic.two_path import Paths, PluralisticTwoPath
from posterior_inpainting.models.shapes import Image, ImageShape, Mask

__all__ = ["TwoPathObjective"]


class TwoPathObjective(Loss):
    """Losses of both paths and the two discriminators that judge them, for ``train(..., loss=TwoPathObjective())``.

    It is no bound on anything. It keeps the discriminators and their optimiser, so that one object serves one training.

    Parameters
    ----------
    divergence, error, adversarial, features
        The weights w_d, w_x, w_a and w_f; those of the published code by default.
    regulariser
        ``"paper"``: KL[q || N(0, s^2)]; ``"code"``: KL[N(0, s^2) || q], as the published code has it.
    discriminator
        From ``(channel, row, column)`` to a module that returns scores and features; made twice.
    learning_rate, betas
        Of the discriminators' Adam.

    Raises
    ------
    ValueError
        For an unknown regulariser, or a weight below 0.

    Examples
    --------
    >>> from posterior_inpainting.inference.training.train import train
    >>> from posterior_inpainting.models import datasets, observations
    >>> from posterior_inpainting.models.networks.pluralistic import PluralisticDecoder, PluralisticEncoder
    >>> from posterior_inpainting.models.pluralistic.two_path import PluralisticTwoPath
    >>> shape = (1, 8, 8)
    >>> model = PluralisticTwoPath(PluralisticEncoder(shape, 2, (8, 8)), PluralisticDecoder(shape, 2, (8, 8)))
    >>> digits, masks = datasets.load("digits", split="train")[:64], observations.random_masks(shape, 20)
    >>> loss = TwoPathObjective()
    >>> training = train(
    ...     model.training_model, model.training_guide, digits, masks=masks, loss=loss, epochs=2, progress=False
    ... )
    >>> sorted(loss.record[-1])
    ['discriminators', 'fooling', 'matching features', 'q and N(0, s^2)', 'q and p', 'seen error', 'whole error']
    """

    def __init__(
        self,
        *,
        divergence: float = 80.0,
        error: float = 20.0,
        adversarial: float = 1.0,
        features: float = 1.0,
        regulariser: str = "paper",
        discriminator: Callable[[ImageShape], nn.Module] = PatchDiscriminator,
        learning_rate: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.999),
    ):
        if regulariser not in ("paper", "code"):
            raise ValueError(f"regulariser={regulariser!r}; expected 'paper' or 'code'")
        weights = {
            "divergence": divergence,
            "error": error,
            "adversarial": adversarial,
            "features": features,
        }
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"{name}={weight}; expected a weight of at least 0")
        self.weights, self.regulariser, self.discriminator = weights, regulariser, discriminator
        self.learning_rate, self.betas = learning_rate, betas
        self.judges: nn.ModuleList | None = None
        self._terms: list[dict[str, Tensor]] = []

    @property
    def record(self) -> list[dict[str, float]]:
        """Every step's terms, unweighted, by name."""
        return [{name: float(term) for name, term in terms.items()} for terms in self._terms]

    def differentiable_loss(self, model: Any, guide: Any, images: Image, masks: Mask | None = None) -> Tensor:
        """Teach the discriminators, and return the model's loss, summed over the batch.

        Parameters
        ----------
        model
            ``PluralisticTwoPath``, or its ``training_model``.
        guide
            Its ``training_guide``; not called, as both paths come from the model.
        images, masks
            ``(n, channel, row, column)``.

        Raises
        ------
        ValueError
            Without masks.
        """
        if masks is None:
            raise ValueError("the two paths need hidden pixels; pass masks=random_masks(...) to train")
        owner: PluralisticTwoPath = model.owner if isinstance(model, TrainingModel) else model
        paths = owner.two_paths(images, masks)
        judges = self._judges(images)
        taught = self._teach(judges, images, paths.reconstructed[-1], paths.generated[-1])
        judges.requires_grad_(False)
        terms = self._divergences(paths) | self._errors(paths, images, masks) | _judged(judges, paths, images)
        judges.requires_grad_(True)
        self._terms.append(
            {name: term.detach() for name, term in (terms | {"discriminators": taught}).items()}
        )
        total = images.new_zeros(())
        for name, term in terms.items():
            total = total + self.weights[_WEIGHT_OF[name]] * term
        return len(images) * total

    def _divergences(self, paths: Paths) -> dict[str, Tensor]:
        stopped = Normal(paths.hidden_law.loc.detach(), paths.hidden_law.scale.detach())
        pair = paths.hidden_law, paths.prior
        return {
            "q and N(0, s^2)": kl_divergence(*(pair if self.regulariser == "paper" else pair[::-1])).mean(),
            "q and p": kl_divergence(stopped, paths.seen_law).mean(),
        }

    @staticmethod
    def _errors(paths: Paths, images: Image, masks: Mask) -> dict[str, Tensor]:
        return {
            "whole error": _error(paths.reconstructed, images, torch.ones_like(masks)),
            "seen error": _error(paths.generated, images, masks),
        }

    def _judges(self, images: Image) -> nn.ModuleList:
        if self.judges is None:
            shape: Any = tuple(images.shape[1:])
            self.judges = nn.ModuleList(self.discriminator(shape) for _ in range(2)).to(images.device)
            parameters = self.judges.parameters()
            self._optimiser = torch.optim.Adam(parameters, lr=self.learning_rate, betas=self.betas)
        return self.judges

    def _teach(self, judges: nn.ModuleList, images: Image, *painted: Image) -> Tensor:
        """Make one step of both discriminators towards 1 for real images and 0 for their path's."""
        loss = torch.zeros((), device=images.device)
        for judge, fake in zip(judges, painted, strict=True):
            scores = judge(torch.cat([images, fake.detach()]))[0]
            real, false = scores[: len(images)], scores[len(images) :]
            loss = loss + ((real - 1).square().mean() + false.square().mean()) / 2
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._optimiser.step()
        return loss.detach()


#: Term of the loss -> whose weight it has.
_WEIGHT_OF = {
    "q and N(0, s^2)": "divergence",
    "q and p": "divergence",
    "whole error": "error",
    "seen error": "error",
    "fooling": "adversarial",
    "matching features": "features",
}


def _judged(judges: nn.ModuleList, paths: Paths, images: Image) -> dict[str, Tensor]:
    """Return the terms in which the discriminators, which learn nothing from them, judge both paths."""
    with torch.no_grad():
        real = judges[0](images)[1]
    painted = judges[0](paths.reconstructed[-1])[1]
    apart = [(one - other).square().mean() for one, other in zip(painted, real, strict=True)]
    return {
        "fooling": (judges[1](paths.generated[-1])[0] - 1).square().mean(),
        "matching features": torch.stack(apart).mean(),
    }


def _error(painted: list[Image], images: Image, seen: Mask) -> Tensor:
    """Return the mean absolute error, summed over scales; a coarse pixel counts where all that it stands for do."""
    total = torch.zeros((), device=images.device)
    for scale in painted:
        size = images.shape[-1] // scale.shape[-1]
        whole = F.avg_pool2d(seen.to(images.dtype), size) == 1
        total = total + torch.where(whole, (scale - F.avg_pool2d(images, size)).abs(), 0.0).mean()
    return total
