"""The deep image prior where the answer is known: its wide limit, and Langevin dynamics on a Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pyro
import pyro.distributions as dist
import tables
import torch

from posterior_inpainting.inference import MALA, ULA, sample
from posterior_inpainting.models.fields import DeepImagePriorKernel
from posterior_inpainting.models.networks import Hourglass, Layers

__all__ = ["SLOPE", "one_dimension_table", "torus_kernel", "wide_network", "width_table"]

SLOPE = 0.2


def wide_network(side: int, width: int, scales: int, blur: float) -> Hourglass:
    """Make a network in the conditions of the limit: circular convolutions, nothing else, blurred input."""
    plain = Layers(resample=False, normalise=False, padding="circular", slope=SLOPE)
    inputs = {"input_channels": width, "input_blur": blur}
    return Hourglass((1, side, side), channels=width, scales=scales, skip=0, layers=plain, **inputs)


def torus_kernel(kernel, side: int) -> torch.Tensor:
    """Return the kernel matrix of all pixels of a torus, ``(pixel, pixel)`` float64."""
    step = torch.arange(side)
    apart = (step[:, None] - step[None, :]).abs()
    squared = torch.minimum(apart, side - apart).double().square()
    distance = squared[:, None, :, None] + squared[None, :, None, :]
    return kernel(distance.reshape(side**2, side**2))


def implied_covariance(network: Hourglass, draws: int) -> list[torch.Tensor]:
    """Return, for single draws of the hidden weights, the output's covariance over the last layer's weights."""
    found = []
    handle = network.out.register_forward_hook(lambda module, inputs, _: found.append(inputs[0]))
    with torch.no_grad():
        for _ in range(draws):
            for parameter in network.parameters():
                parameter.normal_()
            network()
    handle.remove()
    return [
        (network.out.scale**2 * f.flatten(2).squeeze(0).T @ f.flatten(2).squeeze(0)).double() for f in found
    ]


def distance(covariance: torch.Tensor, kernel: torch.Tensor) -> float:
    """Relative Frobenius distance at equal trace."""
    covariance = covariance * (kernel.trace() / covariance.trace())
    return float((covariance - kernel).norm() / kernel.norm())


def width_table(quick: bool) -> str:
    """Measure how far one network's covariance is from the kernel, by width."""
    side, sigma, depth = 16, 1.5, 4
    kernel = torus_kernel(DeepImagePriorKernel(sigma, depth=depth, slope=SLOPE), side)
    others = [
        torus_kernel(DeepImagePriorKernel(s, depth=d, slope=SLOPE), side)
        for s in (0.5, 1, 2, 4)
        for d in (1, 4, 8, 16)
    ]
    lines = []
    for width in [16, 32] if quick else [16, 32, 64, 128, 256, 512]:
        torch.manual_seed(0)
        plain = wide_network(side, width, depth // 2, sigma)
        usual = Hourglass((1, side, side), channels=width, scales=depth // 2, layers=Layers(slope=SLOPE))
        near = np.mean([distance(c, kernel) for c in implied_covariance(plain, 4)])
        far = np.mean([min(distance(c, k) for k in others) for c in implied_covariance(usual, 4)])
        lines.append([width, f"{near:.3f}", f"{far:.3f}"])
    table = tables.markdown(["channels", "in the limit's conditions", "usual hourglass"], lines)
    return f"""## The wide limit

Relative Frobenius distance of the covariance that one draw of the hidden weights implies from the kernel,
{side} x {side} pixels, mean of 4 draws. *In the limit's conditions*: {depth} circular convolutions without
normalisation, blurred input (sigma {sigma}) with as many channels as the layers. *Usual hourglass*: uniform
input of 32 channels, normalisation, resampling, skips; distance to the nearest of 16 kernels.

{table}
"""


def one_dimension_table(quick: bool) -> str:
    """Measure the stationary sd of Langevin dynamics on a Gaussian of known sd."""
    lines = []
    for scale in (0.01, 0.1, 1.0):

        def model(scale=scale):
            pyro.sample("x", dist.Normal(0.0, scale))

        cells = []
        for method in (
            MALA(warmup=100, thin=5, metric="identity"),
            MALA(warmup=100, thin=5, metric="diagonal"),
            ULA(step_size=scale**2, warmup=100),
        ):
            draws = 100 if quick else 1000
            x = sample(model, method, draws=draws, chains=64, progress=False).posterior["x"].to_numpy()
            each = np.sqrt((x**2).mean(1))
            cells.append(f"{math.sqrt((x**2).mean()):.4g} ({each.std() / 8:.1g})")
        cells += [f"{scale / math.sqrt(0.75):.4g}", f"{_adam_with_noise(scale):.3g}"]
        lines.append([scale, *cells])
    head = ["true sd", "MALA", "MALA, diagonal", "ULA", "ULA, theory", "Adam + noise"]
    return f"""## Stationary standard deviation on a Gaussian

Mean over 64 chains (standard error over chains). Unadjusted: eps = s^2, for which
s / sqrt(1 - eps / (4 s^2)) = 1.1547 s. Adam + noise: the published
update, Adam (lr 0.01) on the log density plus N(0, (2 lr)^2).

{tables.markdown(head, lines)}
"""


def _adam_with_noise(scale: float, steps: int = 4000, rate: float = 0.01) -> float:
    """Return the sd that the published update ends with, on N(0, scale^2)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.zeros(256)
    optimiser = torch.optim.Adam([x], lr=rate)
    kept = []
    for step in range(steps):
        x.grad = x / scale**2
        optimiser.step()
        x.add_(2 * rate * torch.randn(256, generator=generator))
        if step > steps // 2:
            kept.append(x.clone())
    return float(torch.stack(kept).std())
