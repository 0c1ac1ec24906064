"""May the draws be trusted, and how good are they: diagnostics, scores, calibration."""
