"""Targets whose truth is known: a 2-D code integrated on a grid, and the eight schools."""

from dataclasses import dataclass

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from scipy import ndimage
from skimage.segmentation import watershed

EFFECT = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def eight_schools(effect, error):
    """Rubin 1981, non-centred."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(effect)):
        eta = pyro.sample("eta", dist.Normal(0.0, 1.0))
        pyro.sample("effect", dist.Normal(mu + tau * eta, error), obs=effect)


@dataclass(frozen=True)
class Grid:
    """A density over ``[-extent, extent]^2``, its cells' probabilities, and its modes' basins."""

    axis: np.ndarray
    log_density: np.ndarray
    log_evidence: float

    @classmethod
    def of(cls, model, image, mask, extent: float = 5.0, points: int = 401):
        axis = torch.linspace(-extent, extent, points)
        z = torch.cartesian_prod(axis, axis)
        densities = model.log_densities(image, mask)
        with torch.no_grad():
            joint = torch.cat([sum(densities({"z": part})) for part in z.split(20_000)]).double()
        cell = float(axis[1] - axis[0]) ** 2
        evidence = float(joint.logsumexp(0)) + np.log(cell)
        return cls(axis.numpy(), joint.reshape(points, points).numpy() - evidence, evidence)

    @property
    def weights(self) -> np.ndarray:
        weights = np.exp(self.log_density - self.log_density.max())
        return weights / weights.sum()

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and sd of both coordinates."""
        first, second = np.meshgrid(self.axis, self.axis, indexing="ij")
        z = np.stack([first.ravel(), second.ravel()])
        weights = self.weights.ravel()
        mean = z @ weights
        return mean, np.sqrt((z - mean[:, None]) ** 2 @ weights)

    def modes(self, barrier: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
        """Basins split by at least ``barrier`` nats: a label for each cell (from 1), and each basin's weight."""
        # Peaks are merged where the saddle between them is less than `barrier` below the lower one.
        raised = ndimage.grey_dilation(self.log_density - barrier, size=3)
        flooded = self._reconstruct(self.log_density - barrier)
        markers, _ = ndimage.label((flooded <= self.log_density - barrier + 1e-9) & (raised > -np.inf))
        labels = watershed(-self.log_density, markers)
        mass = ndimage.sum(self.weights, labels, index=np.arange(1, labels.max() + 1))
        keep = np.flatnonzero(mass > 1e-4) + 1
        labels = watershed(-self.log_density, np.where(np.isin(markers, keep), markers, 0))
        order = keep[np.argsort(-mass[keep - 1])]
        renamed = np.zeros_like(labels)
        for new, old in enumerate(order, start=1):
            renamed[labels == old] = new
        return renamed, ndimage.sum(self.weights, renamed, index=np.arange(1, len(order) + 1))

    def label(self, z: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The basin that each of ``(..., 2)`` lies in."""
        step = self.axis[1] - self.axis[0]
        index = np.clip(np.rint((z - self.axis[0]) / step).astype(int), 0, len(self.axis) - 1)
        return labels[index[..., 0], index[..., 1]]

    def _reconstruct(self, seed: np.ndarray) -> np.ndarray:
        from skimage.morphology import reconstruction

        return reconstruction(seed, self.log_density, method="dilation")
