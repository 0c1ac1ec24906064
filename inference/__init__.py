"""One inference layer for every model: draws, their diagnostics, scores and pictures."""

from posterior_inpainting.inference import calibration_plots, diagnostics, plots, scores
from posterior_inpainting.inference.alternating import Alternating
from posterior_inpainting.inference.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.blending import blend
from posterior_inpainting.inference.calibration import Calibration, calibrate
from posterior_inpainting.inference.chees import ChEES
from posterior_inpainting.inference.convert import load, save
from posterior_inpainting.inference.early_stopping import early_stopping, early_stopping_plot
from posterior_inpainting.inference.exact import Exact
from posterior_inpainting.inference.held_out import score_real
from posterior_inpainting.inference.hmc import HMC, NUTS
from posterior_inpainting.inference.infer import infer, infer_many, sample
from posterior_inpainting.inference.joint import Joint
from posterior_inpainting.inference.langevin import MALA, ULA
from posterior_inpainting.inference.nested import Nested
from posterior_inpainting.inference.optimum import MAP
from posterior_inpainting.inference.pruning import prune, pruning_curve
from posterior_inpainting.inference.smc import TemperedSMC
from posterior_inpainting.inference.store import recover
from posterior_inpainting.inference.tempering import ParallelTempering
from posterior_inpainting.inference.train import Training, train
from posterior_inpainting.inference.variational import Variational

__all__ = [
    "HMC",
    "MALA",
    "MAP",
    "NUTS",
    "ULA",
    "Alternating",
    "BayesByBackprop",
    "Calibration",
    "ChEES",
    "Exact",
    "Joint",
    "Nested",
    "ParallelTempering",
    "TemperedSMC",
    "Training",
    "Variational",
    "blend",
    "calibrate",
    "calibration_plots",
    "diagnostics",
    "early_stopping",
    "early_stopping_plot",
    "infer",
    "infer_many",
    "load",
    "plots",
    "prune",
    "pruning_curve",
    "recover",
    "sample",
    "save",
    "score_real",
    "scores",
    "train",
]
