"""`train_gan`: teach a generator to draw images that a discriminator cannot tell from real ones.

Goodfellow et al. 2014, *Generative Adversarial Nets*, with one of the losses of ``adversarial_losses``, each of
which holds the discriminator's steepness down: without that the game need not settle (Mescheder et al. 2018).
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from posterior_inpainting.inference.training.adversarial_losses import LOSSES
from posterior_inpainting.models.shapes import Image, check_image, describe

__all__ = ["AdversarialTraining", "train_gan"]


@dataclass(frozen=True)
class AdversarialTraining:
    """What an adversarial training did, epoch by epoch.

    Parameters
    ----------
    losses, generator_losses
        Mean losses of discriminator (penalty included) and generator.
    distances
        The discriminator's estimate of how far generated images are from real ones: the Wasserstein-1
        distance of a critic, up to its steepness; of logits a lower bound of the Jensen-Shannon
        divergence in nats, which is at most log 2. Both are of the training images and the
        generator of the moment, not of the averaged one that is returned.
    seconds
        Wall time.
    """

    losses: list[float] = field(default_factory=list)
    generator_losses: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train_gan(
    generator: Any,
    discriminator: Any,
    images: Image,
    *,
    loss: str = "r1",
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 5e-4,
    penalty: float | None = None,
    penalty_every: int = 1,
    critic_steps: int | None = None,
    averaging: float = 0.999,
    seed: int = 0,
    progress: bool = True,
) -> AdversarialTraining:
    """Train generator and discriminator against each other; both are changed in place.

    The generator ends with the exponential moving average of its weights (Karras et al. 2018), because those of
    the last step go round in circles. Adam without momentum; the learning rate falls to 0 along half a cosine.

    Parameters
    ----------
    generator
        From codes ``(n, latent)``, drawn from a standard normal, to images ``(n, channel, row, column)``;
        with ``latent`` and ``image_shape``.
    discriminator
        From images to values ``(n,)``, with ``output``: ``"logit"`` for R1, ``"critic"`` for WGAN-GP.
    images
        ``(n, channel, row, column)`` in [0, 1].
    loss
        ``"r1"`` or ``"wgan-gp"``.
    epochs, batch_size, learning_rate
        Passes of the discriminator over the images, images a step, first step size of both networks.
    penalty
        gamma or lambda of the gradient penalty; 1 for R1, 10 for WGAN-GP by default.
    penalty_every
        Penalise every so many steps, that many times as hard (Karras et al. 2020): cheaper, nearly as good.
    critic_steps
        Steps of the discriminator for one of the generator; 1 for R1, 5 for WGAN-GP by default.
    averaging
        Weight of the past in the moving average, per step of the generator; 0 for none.
    seed
        Seed of order, codes and mixtures: the same seed gives the same weights on the same machine.
    progress
        Whether to show a progress bar.

    Returns
    -------
    AdversarialTraining
        Losses and estimated distances of every epoch.

    Raises
    ------
    ValueError
        If the data or the networks do not fit each other, a network is frozen or mixes the images of a batch
        by batch normalisation, a number is out of range, or the losses stop being finite.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.networks.discriminator import Discriminator
    >>> from posterior_inpainting.models.networks.generator import Generator
    >>> digits = datasets.load("digits", split="train")
    >>> generator, discriminator = Generator(2, (1, 8, 8), (16,)), Discriminator((1, 8, 8), widths=(16,))
    >>> training = train_gan(generator, discriminator, digits, epochs=2, progress=False)
    >>> len(training.distances)
    2
    """
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}; expected one of {', '.join(LOSSES)}")
    rule = LOSSES[loss]
    penalty = rule.penalty if penalty is None else penalty
    critic_steps = rule.critic_steps if critic_steps is None else critic_steps
    _check_numbers(epochs, batch_size, penalty, penalty_every, critic_steps, averaging)
    _check_networks(generator, discriminator, images, loss)
    start = time.perf_counter()
    count = math.ceil(len(images) / batch_size)
    if epochs * count < critic_steps:
        raise ValueError(
            f"{epochs} epochs of {count} steps are fewer than the critic_steps={critic_steps} that come before one "
            "of the generator; train longer"
        )
    players = (discriminator, generator)
    steppers = [torch.optim.Adam(p.parameters(), lr=learning_rate, betas=(0.0, 0.99)) for p in players]
    schedules = [
        torch.optim.lr_scheduler.CosineAnnealingLR(stepper, max(1, epochs * count // each))
        for stepper, each in zip(steppers, (1, critic_steps), strict=True)
    ]
    average = copy.deepcopy(generator).requires_grad_(False)
    record = AdversarialTraining()
    step = moves = 0
    bar = tqdm(total=epochs * count, desc="adversarial training", disable=not progress, unit="step")
    with bar, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            sums, generator_moves = torch.zeros(3, dtype=torch.float64), 0
            for batch in torch.randperm(len(images), device=images.device).split(batch_size):
                real = images[batch]
                with torch.no_grad():
                    fake = generator(_codes(generator, real))
                values = discriminator(real), discriminator(fake)
                value = rule.discriminator(*values)
                if penalty > 0 and step % penalty_every == 0:
                    value = value + penalty * penalty_every * rule.steepness(discriminator, real, fake)
                _move(steppers[0], schedules[0], value)
                sums[0] += float(value.detach())
                sums[1] += float(rule.distance(*(v.detach() for v in values)))
                step += 1
                if step % critic_steps == 0:
                    value = rule.generator(discriminator(generator(_codes(generator, real))))
                    _move(steppers[1], schedules[1], value)
                    sums[2] += float(value.detach())
                    generator_moves += 1
                    moves += 1
                    # Early weights are soon forgotten: the average looks back at most a tenth of the way.
                    _average(average, generator, min(averaging, moves / (moves + 10)) if averaging else 0.0)
                bar.update()
            record.losses.append(float(sums[0]) / count)
            record.distances.append(float(sums[1]) / count)
            record.generator_losses.append(float(sums[2]) / generator_moves if generator_moves else math.nan)
            bar.set_postfix(distance=f"{record.distances[-1]:.3f}")
            if not bool(sums.isfinite().all()):
                raise ValueError(
                    f"the loss is {record.losses[-1]} in epoch {len(record.losses)}; try a learning rate below "
                    f"{learning_rate} or a penalty above {penalty:g}"
                )
    generator.load_state_dict(average.state_dict())
    return dataclasses.replace(record, seconds=time.perf_counter() - start)


def _codes(generator: Any, like: Tensor) -> Tensor:
    return torch.randn(len(like), generator.latent, device=like.device, dtype=like.dtype)


def _move(stepper: torch.optim.Optimizer, schedule: Any, value: Tensor) -> None:
    """Make one step of one player, whose gradient alone is computed."""
    parameters = stepper.param_groups[0]["params"]
    for parameter, slope in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
        parameter.grad = slope
    stepper.step()
    schedule.step()


def _average(average: nn.Module, network: nn.Module, past: float) -> None:
    with torch.no_grad():
        for old, new in zip(average.parameters(), network.parameters(), strict=True):
            old.lerp_(new, 1 - past)


def _check_numbers(
    epochs: int, batch_size: int, penalty: float, penalty_every: int, critic_steps: int, averaging: float
) -> None:
    if min(epochs, batch_size, penalty_every, critic_steps) < 1:
        raise ValueError(
            f"epochs={epochs}, batch_size={batch_size}, penalty_every={penalty_every}, "
            f"critic_steps={critic_steps}; expected at least 1 of each"
        )
    if penalty < 0 or not 0 <= averaging < 1:
        raise ValueError(
            f"penalty={penalty}, averaging={averaging}; expected penalty >= 0 and averaging in [0, 1)"
        )


def _check_networks(generator: Any, discriminator: Any, images: Image, loss: str) -> None:
    check_image(images, generator.image_shape)
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"images is {describe(images)}; expected (n, channel, row, column) with n > 0")
    if not bool(images.isfinite().all()):
        raise ValueError(f"images has {int((~images.isfinite()).sum())} values that are NaN or infinite")
    if tuple(discriminator.image_shape) != tuple(generator.image_shape):
        raise ValueError(
            f"the generator makes images of shape {tuple(generator.image_shape)}, "
            f"the discriminator judges {tuple(discriminator.image_shape)}"
        )
    expected = LOSSES[loss].output
    if discriminator.output != expected:
        raise ValueError(
            f"loss={loss!r} needs a discriminator with output={expected!r}; this one has {discriminator.output!r}"
        )
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        if not all(p.requires_grad for p in network.parameters()):
            raise ValueError(f"the {name} has frozen weights; give it requires_grad_(True) to train it")
        # SyncBatchNorm and the lazy kinds inherit from it too.
        if any(isinstance(m, nn.modules.batchnorm._NormBase) and not _by_image(m) for m in network.modules()):
            raise ValueError(
                f"the {name} has batch normalisation, so that an image would depend on its batch"
            )


def _by_image(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.instancenorm._InstanceNorm)
