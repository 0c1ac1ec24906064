r"""R-hat, effective sample sizes and errors of standard deviations, of many quantities at once.

Vehtari, Gelman, Simpson, Carpenter & Bürkner 2021, *Rank-normalization, folding, and localization: an improved
R-hat*. Chains are split into halves; with n draws in each of m halves, W the mean variance within and B / n that
between their means,

.. math:: \hat R = \sqrt{\frac{(n - 1) W + B}{n W}}, \qquad
          \mathrm{ESS} = \frac{m n}{\tau}, \qquad \tau = -1 + 2 \sum_t (\rho_{2t} + \rho_{2t+1}),

with the autocorrelations that the m halves have together, cut off and made monotone by Geyer's initial sequence.
The numbers are ArviZ's; what takes a loop over quantities there is one sort and one Fourier transform here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy import fft
from scipy.special import ndtri

__all__ = ["error_of_sd", "ess", "rhat"]

#: Numbers that are worked on at a time: few, because what stays in the processor's cache is faster.
_CHUNK = 500_000
_TAILS = (0.05, 0.95)


def rhat(values: np.ndarray, ranks: bool = True) -> np.ndarray:
    """Return the rank-normalised split R-hat, the larger one of bulk and folded draws.

    Parameters
    ----------
    values
        ``(chain, draw, ...)``. A single chain is compared with itself, half with half.
    ranks
        Whether to take ranks; without, it is that of the draws as they are, which costs a tenth.

    Returns
    -------
    ndarray
        Shaped as one draw. NaN for a quantity that does not vary or has a NaN, and for fewer than 4 draws.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 2))
    >>> draws[0, :, 1] += 3  # one chain is elsewhere
    >>> found = rhat(draws)
    >>> bool(found[0] < 1.01), bool(found[1] > 1.2)
    (True, True)
    """
    if values.shape[0] == 1:
        half = values.shape[1] // 2
        values = values[:, : 2 * half].reshape(2, half, *values.shape[2:])
    return _by_chunk(values, _rhat if ranks else lambda piece: _plain_rhat(_halves(piece)))


def ess(values: np.ndarray, kind: str = "bulk") -> np.ndarray:
    """Return the effective sample size.

    Parameters
    ----------
    values
        ``(chain, draw, ...)``.
    kind
        ``"bulk"``, of the rank-normalised draws; ``"tail"``, the smaller one of the quantiles .05 and .95;
        ``"mean"``, of the draws as they are.

    Returns
    -------
    ndarray
        Shaped as one draw. The number of draws for a quantity that does not vary; NaN for one that has a NaN, and
        for fewer than 4 draws.

    Raises
    ------
    ValueError
        For an unknown kind.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500, 3))
    >>> bool((ess(draws) > 1500).all()), ess(draws, "tail").shape
    (True, (3,))
    """
    kinds = {"bulk": _ess_bulk, "tail": _ess_tail, "mean": _ess_mean}
    if kind not in kinds:
        raise ValueError(f"kind={kind!r}; expected 'bulk', 'tail' or 'mean'")
    return _by_chunk(values, kinds[kind])


def error_of_sd(values: np.ndarray) -> np.ndarray:
    r"""Return the Monte Carlo standard error of standard deviations, relative to them.

    With :math:`\kappa` the kurtosis and N the effective sample size of squared deviations it is
    :math:`\tfrac12 \sqrt{(\kappa - 1) / N}`: that of a far mode of little weight is large, whatever R-hat says.

    Parameters
    ----------
    values
        ``(chain, draw, ...)``.

    Returns
    -------
    ndarray
        Shaped as one draw; NaN for a quantity that does not vary or has a NaN, and for fewer than 4 draws.

    Examples
    --------
    >>> draws = np.random.default_rng(0).normal(size=(4, 500))
    >>> abs(float(error_of_sd(draws)) - 0.5 * (2 / 2000) ** 0.5) < 0.003
    True
    """
    return _by_chunk(values, _error_of_sd)


def _by_chunk(values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply a statistic of ``(quantity, chain, draw)`` without NaN, some quantities at a time."""
    chains, draws = values.shape[:2]
    flat = np.asarray(values).reshape(chains, draws, -1)
    result = np.full(flat.shape[-1], np.nan)
    kind = np.float32 if flat.dtype == np.float32 else float
    if draws < 4:
        return result.reshape(values.shape[2:])
    for some in _slices(flat.shape[-1], max(1, _CHUNK // (chains * draws))):
        piece = np.moveaxis(flat[:, :, some], -1, 0).astype(kind, order="C")
        whole = ~np.isnan(piece).any((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            result[some][whole] = statistic(piece if whole.all() else piece[whole])
    return result.reshape(values.shape[2:])


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))


def _halves(values: np.ndarray) -> np.ndarray:
    """Split each chain into two ``(quantity, 2 * chain, draw // 2)``; of an odd number the middle is left out."""
    half = values.shape[-1] // 2
    return np.concatenate([values[..., :half], values[..., -half:]], 1)


def _sorted(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of every row's values, and which of them, so ordered, equal the next."""
    if flat.dtype != np.float32:
        order = flat.argsort(-1)
        ordered = np.take_along_axis(flat, order, -1)
        return order, ordered[:, 1:] == ordered[:, :-1]
    # Value and place in one whole number, which sorts faster than places by value: a float's bits are in its order
    # where the sign bit is turned, and all others too if it is negative. Minus zero becomes zero.
    bits = (flat + np.float32(0)).view(np.uint32)
    bits ^= np.where(bits >> 31, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
    keys = bits.astype(np.uint64) << np.uint64(32)
    keys |= np.arange(flat.shape[-1], dtype=np.uint64)
    keys.sort(-1)
    return keys.astype(np.uint32).astype(np.intp), (keys[:, 1:] ^ keys[:, :-1]) < np.uint64(1 << 32)


def _scores(order: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Return the normal scores of the ranks that values have in their row; equal ones share their mean rank."""
    count = order.shape[-1]
    # A half is a rank too; the scores of all that there can be are made once.
    scores = ndtri((np.arange(1, count + 1, 0.5) - 0.375) / (count + 0.25))
    result = np.empty(order.shape)
    np.put_along_axis(result, order, scores[None, ::2], -1)
    row, place = same.nonzero()
    if len(row):
        begins = np.flatnonzero((np.diff(row, prepend=-1) != 0) | (np.diff(place, prepend=-2) != 1))
        lengths = np.diff(begins, append=len(row)) + 1
        first = np.repeat(place[begins], lengths)
        within = np.arange(len(first)) - np.repeat(lengths.cumsum() - lengths, lengths)
        rows = np.repeat(row[begins], lengths)
        result[rows, order[rows, first + within]] = scores[2 * first + np.repeat(lengths, lengths) - 1]
    return result


def _rhat(values: np.ndarray) -> np.ndarray:
    split = _halves(values)
    flat = split.reshape(len(split), -1)
    count = flat.shape[-1]
    order, same = _sorted(flat)
    bulk = _plain_rhat(_scores(order, same).reshape(split.shape))
    median = np.take_along_axis(flat, order[:, [(count - 1) // 2, count // 2]], -1).mean(-1, keepdims=True)
    folded = np.abs(flat - median)
    tail = _plain_rhat(_scores(*_sorted(folded)).reshape(split.shape))
    found = np.where(tail > bulk, tail, bulk)
    return np.where(same.all(-1), np.nan, found)


def _plain_rhat(values: np.ndarray) -> np.ndarray:
    draws = values.shape[-1]
    between = draws * values.mean(-1).var(-1, ddof=1)
    within = values.var(-1, ddof=1).mean(-1)
    return np.sqrt((between / within + draws - 1) / draws)


def _ess_bulk(values: np.ndarray) -> np.ndarray:
    split = _halves(values)
    flat = split.reshape(len(split), -1)
    return _plain_ess(_scores(*_sorted(flat)).reshape(split.shape))


def _ess_mean(values: np.ndarray) -> np.ndarray:
    return _plain_ess(_halves(values.astype(float)))


def _ess_tail(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(len(values), -1)
    count = flat.shape[-1]
    # From 1, between two draws: R's type 7, by SciPy's very sums, whose rounding decides where a place is whole.
    places = [count * share + (1 - share) for share in _TAILS]
    lower = [min(int(place), count - 1) for place in places]
    ordered = np.partition(flat, sorted({index for k in lower for index in (k - 1, k)}), -1)
    found = []
    for place, k in zip(places, lower, strict=True):
        below, above = ordered[:, k - 1].astype(float), ordered[:, k].astype(float)
        between = (1 - (place - k)) * below + (place - k) * above
        quantile = np.where(below == above, below, between)
        found.append(_plain_ess(_halves((values <= quantile[:, None, None]).astype(float))))
    return np.minimum(*found)


def _error_of_sd(values: np.ndarray) -> np.ndarray:
    squares = np.square(values.astype(float) - values.mean((1, 2), keepdims=True, dtype=float))
    kurtosis = np.square(squares).mean((1, 2)) / np.square(squares.mean((1, 2)))
    return 0.5 * np.sqrt((kurtosis - 1) / _plain_ess(_halves(squares)))


def _plain_ess(values: np.ndarray) -> np.ndarray:
    """Effective sample size of ``(quantity, chain, draw)`` as they are."""
    _, chains, draws = values.shape
    mean = values.mean(-1, keepdims=True)
    size = fft.next_fast_len(2 * draws, real=True)
    spectrum = fft.rfft(values - mean, size, axis=-1)
    # Of all chains together, so that only one transform has to go back.
    power = (spectrum.real**2 + spectrum.imag**2).mean(1)
    covariance = fft.irfft(power, size, axis=-1)[:, :draws] / draws
    within = covariance[:, :1] * draws / (draws - 1)
    whole = covariance[:, :1] + (mean[..., 0].var(1, ddof=1)[:, None] if chains > 1 else 0.0)
    rho = 1 - (within - covariance) / whole
    rho[:, 0] = 1
    tau = np.where(np.isfinite(whole[:, 0]), np.maximum(_geyer(rho), 1 / np.log10(chains * draws)), np.nan)
    constant = np.ptp(values, (1, 2)) < np.finfo(float).resolution
    return np.where(constant, chains * draws, chains * draws / tau)


def _geyer(rho: np.ndarray) -> np.ndarray:
    """Return autocorrelation times of ``(quantity, lag)``: pairs of lags up to the first whose sum is not positive.

    Of that pair only the first lag counts, once and if it is positive; pairs before it may not grow again.
    """
    draws = rho.shape[-1]
    last = max(0, -(-(draws - 4) // 2))  # of the pairs
    pairs = rho[:, : 2 * last + 2].reshape(len(rho), last + 1, 2)
    sums = pairs.sum(-1)
    ends = ~(sums > 0)
    ends[:, last] = True
    end = ends.argmax(-1)
    before = np.arange(last + 1) < end[:, None]
    monotone = np.minimum.accumulate(np.where(before, sums, np.inf), -1)
    rows = np.arange(len(rho))
    first = pairs[rows, end, 0]
    counts = (first > 0) | (sums[rows, end] >= 0)
    return -1 + 2 * np.where(before, monotone, 0.0).sum(-1) + np.where(counts | np.isnan(first), first, 0.0)
