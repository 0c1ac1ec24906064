"""The integrated autocorrelation time of many quantities at once: the interval at which to thin chains."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["autocorrelation_time"]

#: Numbers that are worked on at a time.
_CHUNK = 500_000


def autocorrelation_time(values: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return integrated autocorrelation time and R-hat of quantities as they are, both ``(quantity,)``.

    .. math:: \tau = -1 + 2 \sum_t \min_{s \le t} (\rho_{2s} + \rho_{2s+1}), \qquad
              \rho_t = 1 - \frac{W - \bar\gamma_t}{\widehat{\mathrm{var}}^+},

    with W the variance within chains, var+ that of all draws, gamma the autocovariance (Geyer 1992). Neither ranks
    nor halves of chains are taken: this is the interval at which to thin. Chains that disagree have a long one.

    Parameters
    ----------
    values
        ``(chain, draw, quantity)``. A quantity that does not vary, or is not finite, has time ``draw``.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> steps = torch.randn(32, 4000, 1, generator=generator)
    >>> for t in range(1, 4000):
    ...     steps[:, t] += 0.8 * steps[:, t - 1]
    >>> tau, _ = autocorrelation_time(steps)
    >>> abs(float(tau) - (1 + 0.8) / (1 - 0.8)) < 0.5
    True
    """
    chains, draws, _ = values.shape
    pieces = values.split(max(1, _CHUNK // (chains * draws)), -1)
    times, rhats = zip(*(_time_of_chunk(piece.double()) for piece in pieces), strict=True)
    return torch.cat(times), torch.cat(rhats)


def _time_of_chunk(values: Tensor) -> tuple[Tensor, Tensor]:
    chains, draws, _ = values.shape
    centred = values - values.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * draws, dim=1).abs().square().mean(0)
    covariance = torch.fft.irfft(spectrum, n=2 * draws, dim=0)[:draws] / draws
    within = covariance[0] * draws / max(1, draws - 1)
    between = values.mean(1).var(0) if chains > 1 else torch.zeros_like(within)
    whole = covariance[0] + between
    rho = 1 - (within - covariance) / whole
    rho[0] = 1
    pairs = rho[: draws // 2 * 2].unflatten(0, (-1, 2)).sum(1) if draws > 1 else rho
    pairs = pairs.cummin(0).values.clamp(min=0)
    tau = (2 * pairs.sum(0) - 1).nan_to_num(draws, draws).clamp(1, draws)
    return tau, (whole / within).sqrt()
