"""May the draws be trusted, and how good are they: diagnostics, scores, calibration."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submodules=["calibration_plots", "diagnostics", "plots", "scores"]
)
