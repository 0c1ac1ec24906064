"""`train`: learn the parameters of a model and its guide from many images, by stochastic ELBO."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import pyro
import torch
from pyro import poutine
from pyro.infer import ELBO, TraceMeanField_ELBO
from torch import Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.density.tracing import is_bookkeeping
from posterior_inpainting.inference.training.bayes_by_backprop import DivergenceWeight, uniform_weights
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.shapes import Image, Mask, check_image

__all__ = ["Training", "train"]


@dataclass(frozen=True)
class Training:
    """What a training did: the mean negative ELBO in nats an image, epoch by epoch."""

    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train(
    model: ImageModel | Callable,
    guide: Callable,
    data: Image,
    *,
    targets: Tensor | None = None,
    masks: Mask | None = None,
    epochs: int = 20,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    optimiser: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    loss: ELBO | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Training:
    """Fit every trainable parameter of ``model`` and ``guide`` by maximising the ELBO.

    The learning rate falls to 0 along half a cosine (Loshchilov & Hutter 2017). The parameters are
    changed in place; what is frozen (``requires_grad_(False)``) stays. Random weights, which all data share,
    count in a minibatch with its share of their divergence, so that an epoch's losses add up to minus the ELBO.

    Parameters
    ----------
    model, guide
        A model of this collection and its guide, called with ``(images, masks)``.
    data
        Images ``(n, channel, row, column)`` in [0, 1]; with targets, any inputs ``(n, ...)``.
    targets
        ``(n, ...)``, one for each input: the model and the guide are then called with ``(inputs, targets)``.
    masks
        A bank ``(m, channel, row, column)`` of masks, ``True`` = seen, of which every image gets a
        random one at every step; ``None`` shows every pixel.
    epochs, batch_size, learning_rate
        Passes over the data, images a step, first step size.
    optimiser
        Any ``torch.optim`` class.
    loss
        The ELBO; by default with the divergence in closed form where there is one. ``BayesByBackprop(...)``
        says how the minibatches share the divergence of random weights; by default, each by its size.
    seed
        Seed of order, masks and draws: the same seed gives the same parameters on the same machine.
    progress
        Whether to show a progress bar.

    Returns
    -------
    Training
        The loss of every epoch.

    Raises
    ------
    ValueError
        If the data have the wrong shape, nothing is trainable, the ELBO has no gradient, or the loss stops
        being finite.

    Examples
    --------
    >>> from posterior_inpainting.models import VariationalAutoencoder, datasets
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> digits = datasets.load("digits", split="train")
    >>> _ = torch.manual_seed(0)
    >>> vae = VariationalAutoencoder(MultilayerDecoder(2, (1, 8, 8)), MaskedEncoder(2, (1, 8, 8)))
    >>> training = train(vae, vae.guide, digits, epochs=3, progress=False)
    >>> training.losses[-1] < training.losses[0]
    True
    """
    _check_data(model, data, targets, masks)
    if not data.isfinite().all():
        raise ValueError(f"data has {int((~data.isfinite()).sum())} values that are NaN or infinite")
    if epochs < 1 or batch_size < 1:
        raise ValueError(f"epochs={epochs}, batch_size={batch_size}; expected at least 1 of each")
    parameters = _trainable(model, guide, data[:1], None if targets is None else targets[:1])
    start = time.perf_counter()
    sizes = [min(batch_size, len(data) - first) for first in range(0, len(data), batch_size)]
    steps = epochs * len(sizes)
    stepper = optimiser(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, steps)
    if loss is None:
        _check_reparametrised(guide, data[:1], None if targets is None else targets[:1])
        loss = TraceMeanField_ELBO()
    shares = getattr(loss, "minibatch_weights", uniform_weights)(sizes).tolist()
    losses: list[float] = []
    bar = tqdm(total=steps, desc="training", disable=not progress, unit="step")
    with (
        bar,
        torch.random.fork_rng(devices=[]),
        pyro.get_param_store().scope(),  # the parameters live in the modules, not in Pyro's store
        pyro.validation_enabled(False),
    ):
        torch.manual_seed(seed)
        for _ in range(epochs):
            total = torch.zeros((), dtype=torch.float64)
            batches = torch.randperm(len(data), device=data.device).split(batch_size)
            for batch, share in zip(batches, shares, strict=True):
                images = data[batch]
                beside = None if targets is None else targets[batch]
                if masks is not None:
                    beside = masks[torch.randint(len(masks), (len(batch),))]
                stepper.zero_grad(set_to_none=True)
                with warnings.catch_warnings(), DivergenceWeight(share):
                    # A loss that is NaN is an error below, not a warning.
                    warnings.filterwarnings("ignore", "Encountered NaN")
                    value = loss.differentiable_loss(model, guide, images, beside)
                (value / len(batch)).backward()
                stepper.step()
                schedule.step()
                total += value.detach().cpu()
                bar.update()
            losses.append(float(total) / len(data))
            bar.set_postfix(loss=f"{losses[-1]:.1f}")
            if not torch.isfinite(total):
                raise ValueError(
                    f"the loss is {float(total)} in epoch {len(losses)}; try a learning rate below {learning_rate}"
                )
    return Training(losses, time.perf_counter() - start)


def _check_data(model: Callable, data: Tensor, targets: Tensor | None, masks: Mask | None) -> None:
    """Raise where images do not fit the model, or targets the inputs."""
    if targets is None:
        check_image(data, model.image_shape)  # type: ignore[attr-defined]
        if data.dim() != 4 or len(data) == 0:
            raise ValueError(
                f"data has shape {tuple(data.shape)}; expected (n, channel, row, column) with n > 0"
            )
    elif masks is not None:
        raise ValueError("both targets and masks are given; a model takes one or the other beside its data")
    elif len(data) == 0 or len(targets) != len(data):
        raise ValueError(
            f"there are {len(data)} inputs and {len(targets)} targets; expected as many, above 0"
        )


def _check_reparametrised(guide: Callable, images: Tensor, targets: Tensor | None) -> None:
    """Refuse a discrete site: the gradient of the ELBO goes through the draws of the guide."""
    arguments = (images,) if targets is None else (images, targets)
    with pyro.get_param_store().scope(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        sites = poutine.trace(guide).get_trace(*arguments).nodes.items()
    for name, site in sites:
        latent = site["type"] == "sample" and not site["is_observed"] and not is_bookkeeping(site)
        if latent and not site["fn"].has_rsample:
            raise ValueError(
                f"the guide's site {name!r} has no reparametrised draws, which the ELBO needs; give the loss that its "
                "model is trained by, such as loss=PixelCrossEntropy()"
            )


def _trainable(model: Callable, guide: Callable, images: Tensor, targets: Tensor | None) -> list[Tensor]:
    """Collect the trainable parameters of both, once each, after one call that makes lazy ones."""
    with pyro.get_param_store().scope(), torch.no_grad(), torch.random.fork_rng(devices=[]):
        guide(images) if targets is None else guide(images, targets)
    owners = [model, getattr(guide, "__self__", guide)]
    unique = {id(p): p for owner in owners if isinstance(owner, torch.nn.Module) for p in owner.parameters()}
    parameters: list[Tensor] = [p for p in unique.values() if p.requires_grad]
    if not parameters:
        raise ValueError("neither the model nor the guide has a trainable parameter; is the decoder frozen?")
    return parameters
