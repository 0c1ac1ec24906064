"""How one completion compares with the truth: the figures of a cell of a comparison, which `complete` prints too."""

from __future__ import annotations

from posterior_inpainting.inference.evaluation import scores
from posterior_inpainting.inference.evaluation.diversity import diversity
from posterior_inpainting.models.shapes import Image

__all__ = ["figures"]


def figures(posterior, truth: Image) -> dict[str, float]:
    """Return scores against the truth and the draws' diversity by name, hidden pixels only.

    Restarts of an optimiser are no draws, but they are scored as if they were, because that is how they are read;
    the result's ``draws_are`` says so.

    Parameters
    ----------
    posterior
        What ``infer`` returned; at least 2 draws or restarts.
    truth
        The whole image, ``(channel, row, column)`` in [0, 1].

    Raises
    ------
    ValueError
        As ``scores.score``.

    Examples
    --------
    >>> from posterior_inpainting.inference import Variational, infer
    >>> from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    >>> image = datasets.load("digits")[0]
    >>> seen = Observation(image, observations.half(image.shape, hide="bottom"))
    >>> posterior = infer(LatentCode(pretrained.load("digits-vae-2d")), seen, Variational(), progress=False)
    >>> {"CRPS", "diversity (RMSE)"} <= set(figures(posterior, image))
    True
    """
    return scores.score(posterior, truth, restarts_as_draws=True) | diversity(posterior)
