"""`train_gan`: teach a generator to draw images that a discriminator cannot tell from real ones.

Goodfellow et al. 2014, *Generative Adversarial Nets*, with one of the losses of ``adversarial_losses``, each of
which holds the discriminator's steepness down: without that the game need not settle (Mescheder et al. 2018).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.adversarial_losses import LOSSES, AdversarialLoss
from posterior_inpainting.inference.training.moving_average import MovingAverage
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.models.shapes import Image, check_image, describe, refuse_eight_bits

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


#: Adam without momentum; the generator's weights are averaged.
GAN_SCHEDULE = Schedule(
    batch_size=128,
    learning_rate=5e-4,
    averaging=0.999,
    optimiser=partial(torch.optim.Adam, betas=(0.0, 0.99)),
)


def train_gan(
    generator: Any,
    discriminator: Any,
    images: Image,
    *,
    loss: str | AdversarialLoss = "r1",
    schedule: Schedule = GAN_SCHEDULE,
    **settings: Any,
) -> AdversarialTraining:
    """Train generator and discriminator against each other, both in place, and return losses and distances.

    The generator ends with the exponential moving average of its weights (Karras et al. 2018), because those of
    the last step go round in circles.

    Parameters
    ----------
    generator
        From standard normal codes ``(n, latent)`` to images, with ``latent`` and ``image_shape``.
    discriminator, images
        From images ``(n, channel, row, column)`` in [0, 1] to values ``(n,)``; its ``output`` is the loss's.
    loss
        ``"r1"``, ``"wgan-gp"``, or one with settings of its own: ``R1(penalty=5.0)``, ``WassersteinGP(...)``.
    schedule, settings
        A ``Schedule`` of both networks, in epochs of the discriminator, and fields of it to change: ``epochs=20``. The
        moving average is by the step of the generator. There are no checkpoints.

    Raises
    ------
    ValueError
        If data and networks do not fit each other, a network is frozen or mixes the images of a batch by batch
        normalisation, a number is out of range, or the losses stop being finite.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> from posterior_inpainting.models.networks.discriminator import Discriminator
    >>> from posterior_inpainting.models.networks.generator import Generator
    >>> players = Generator(2, (1, 8, 8), (16,)), Discriminator((1, 8, 8), widths=(16,))
    >>> training = train_gan(*players, datasets.load("digits")[:100], epochs=2, progress=False)
    >>> len(training.distances)
    2
    """
    schedule, rule = replace(schedule, **settings), _rule(loss)
    if schedule.checkpoint is not None:
        raise ValueError(f"checkpoint={str(schedule.checkpoint)!r}; a training of two networks keeps none")
    _check_networks(generator, discriminator, images, rule)
    steps = _steps(schedule, rule, len(images))
    return _Game(generator, discriminator, rule, schedule, steps).play(images)


class _Game:
    """Two players in training, and the average of one of them."""

    def __init__(
        self,
        generator: Any,
        discriminator: Any,
        rule: AdversarialLoss,
        schedule: Schedule,
        steps: int,
    ):
        self.rule, self.schedule, self.steps = rule, schedule, steps
        self.judge = _Player(discriminator, *schedule.stepper(discriminator.parameters(), steps))
        turns = max(1, steps // rule.critic_steps)
        self.painter = _Player(generator, *schedule.stepper(generator.parameters(), turns))
        self.average = MovingAverage(generator.parameters(), schedule.averaging)
        self.step = 0

    def play(self, images: Image) -> AdversarialTraining:
        """Play all epochs, and leave the generator with its average."""
        start, record, schedule = time.perf_counter(), AdversarialTraining(), self.schedule
        bar = progress_bar(
            total=self.steps, desc="adversarial training", disable=not schedule.progress, unit="step"
        )
        with bar, Streams(schedule.seed).seeded("training"):
            for _ in range(schedule.epochs):
                judged, painted = [], []
                for batch in torch.randperm(len(images), device=images.device).split(schedule.batch_size):
                    judged.append(self.judge_once(images[batch]))
                    if self.step % self.rule.critic_steps == 0:
                        painted.append(self.paint_once(images[batch]))
                    bar.update()
                # Once an epoch, because a GPU stands still whenever it is asked for a number.
                loss, distance = torch.stack(judged).mean(0).tolist()
                record.losses.append(loss)
                record.distances.append(distance)
                paintings = [float(torch.stack(painted).mean())] if painted else []
                record.generator_losses.extend(paintings or [math.nan])
                bar.set_postfix(distance=f"{distance:.3f}")
                if not all(map(math.isfinite, (loss, distance, *paintings))):
                    raise ValueError(
                        f"the loss is {record.losses[-1]} in epoch {len(record.losses)}; try a learning rate below "
                        f"{schedule.learning_rate} or a penalty above {self.rule.penalty:g}"
                    )
        self.average.finish()
        return replace(record, seconds=time.perf_counter() - start)

    def judge_once(self, real: Image) -> Tensor:
        """Make one step of the discriminator; return its loss and the distance that it sees, ``(2,)``."""
        rule, judge = self.rule, self.judge.network
        with torch.no_grad():
            fake = self.paint(real)
        values = judge(real), judge(fake)
        value = rule.discriminator(*values)
        if rule.penalty > 0 and self.step % rule.penalty_every == 0:
            value = value + rule.penalty * rule.penalty_every * rule.steepness(judge, real, fake)
        self.judge.move(value)
        self.step += 1
        return torch.stack([value.detach(), rule.distance(*(v.detach() for v in values))])

    def paint_once(self, like: Image) -> Tensor:
        """Make one step of the generator and of its average; return its loss, ``()``."""
        value = self.rule.generator(self.judge.network(self.paint(like)))
        self.painter.move(value)
        self.average.update()
        return value.detach()

    def paint(self, like: Image) -> Image:
        """Draw as many images as are given."""
        generator = self.painter.network
        return generator(torch.randn(len(like), generator.latent, device=like.device, dtype=like.dtype))


@dataclass(frozen=True)
class _Player:
    network: Any
    optimiser: torch.optim.Optimizer
    cosine: Any

    def move(self, value: Tensor) -> None:
        """Make one step, computing the gradient of this player alone."""
        parameters = list(self.network.parameters())
        for parameter, slope in zip(parameters, torch.autograd.grad(value, parameters), strict=True):
            parameter.grad = slope
        self.optimiser.step()
        self.cosine.step()


def _steps(schedule: Schedule, rule: AdversarialLoss, images: int) -> int:
    """Return the number of the discriminator's steps."""
    count = len(schedule.sizes(images))
    if schedule.epochs * count < rule.critic_steps:
        raise ValueError(
            f"{schedule.epochs} epochs of {count} steps are fewer than the critic_steps={rule.critic_steps} that come "
            "before one of the generator; train longer"
        )
    return schedule.epochs * count


def _rule(loss: str | AdversarialLoss) -> AdversarialLoss:
    if isinstance(loss, AdversarialLoss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}; expected one of {', '.join(LOSSES)}, or an AdversarialLoss")
    return LOSSES[loss]()


def _check_networks(generator: Any, discriminator: Any, images: Image, rule: AdversarialLoss) -> None:
    check_image(images, generator.image_shape)
    refuse_eight_bits(images)
    if images.dim() != 4 or len(images) == 0:
        raise ValueError(f"images is {describe(images)}; expected (n, channel, row, column) with n > 0")
    if not bool(images.isfinite().all()):
        raise ValueError(f"images has {int((~images.isfinite()).sum())} values that are NaN or infinite")
    if tuple(discriminator.image_shape) != tuple(generator.image_shape):
        raise ValueError(
            f"the generator makes images of shape {tuple(generator.image_shape)}, "
            f"the discriminator judges {tuple(discriminator.image_shape)}"
        )
    if discriminator.output != rule.output:
        raise ValueError(
            f"{type(rule).__name__} needs a discriminator with output={rule.output!r}; "
            f"this one has {discriminator.output!r}"
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
