"""What a kind of prior asks of a training: phases, in each of which networks move against losses of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["Phase", "Player"]


@dataclass(frozen=True)
class Player:
    """Networks that move together, and the loss that moves them.

    Parameters
    ----------
    networks
        Their parameters that require a gradient are moved.
    loss
        From indices of training images ``(n,)`` to the mean loss of a minibatch, ``()``.
    betas
        Of Adam.
    """

    networks: tuple[nn.Module, ...]
    loss: Callable[[Tensor], Tensor]
    betas: tuple[float, float] = (0.9, 0.999)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What is moved."""
        return [one for network in self.networks for one in network.parameters() if one.requires_grad]


@dataclass(frozen=True)
class Phase:
    """A part of a training, which ends when its score rises no more or its share of the time is over.

    Parameters
    ----------
    name
        What is learnt in it.
    players
        Who moves in a step, in this order: one as a rule, two in a game.
    score
        How good the networks are on validation images, higher being better. It draws the same random numbers whenever
        it is asked, so that scores can be compared.
    begin
        What is done before it: freezing networks, say, or fitting something to what an earlier phase has learnt.
    share
        Of the time that there is.
    learning_rate, batch_size
        First step size of Adam, images a step.
    averaging
        Weight of the past in the moving average of the weights, per step; the average is scored, and kept.
    validation
        Images that the networks go through for a score: the more, the more epochs lie between two.
    patience
        Validations without a better score before steps shrink: more where scores are noisy.

    Examples
    --------
    >>> import torch
    >>> line = nn.Linear(1, 1)
    >>> phase = Phase("line", (Player((line,), lambda which: line.weight.sum()),), score=lambda: 0.0)
    >>> [tuple(one.shape) for one in phase.players[0].parameters], phase.share
    ([(1, 1), (1,)], 1.0)
    """

    name: str
    players: tuple[Player, ...]
    score: Callable[[], float]
    begin: Callable[[], None] = field(default=lambda: None)
    share: float = 1.0
    learning_rate: float = 1e-3
    batch_size: int = 128
    averaging: float = 0.998
    validation: int = 500
    patience: int = 6
