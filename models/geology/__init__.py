"""Geology from sparse measurements: simulated channels, wells, and the published baseline (Dupont et al. 2018)."""

from posterior_inpainting.models.geology.meandering_channels import MeanderingChannels
from posterior_inpainting.models.geology.nearest_measurement import NearestMeasurement, nearest_measurement
from posterior_inpainting.models.geology.wells import columns, nearest_seen, wells

__all__ = [
    "MeanderingChannels",
    "NearestMeasurement",
    "columns",
    "nearest_measurement",
    "nearest_seen",
    "wells",
]
