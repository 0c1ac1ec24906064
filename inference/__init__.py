"""One inference layer for every model: draws, their diagnostics, scores and pictures."""

from posterior_inpainting.inference import catalogue
from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.comparison.compare import compare
from posterior_inpainting.inference.contract import Draws, Method, Plan, Problem
from posterior_inpainting.inference.evaluation import calibration_plots, diagnostics, plots, scores
from posterior_inpainting.inference.evaluation.calibration import Calibration, calibrate
from posterior_inpainting.inference.evaluation.early_stopping import early_stopping, early_stopping_plot
from posterior_inpainting.inference.evaluation.held_out import score_real
from posterior_inpainting.inference.evaluation.pruning import prune, pruning_curve
from posterior_inpainting.inference.evaluation.step_doubling import StepDoubling, step_doubling
from posterior_inpainting.inference.infer import infer, infer_many, sample
from posterior_inpainting.inference.methods.alternating import Alternating
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.methods.diffpir import DiffPIR
from posterior_inpainting.inference.methods.dps import DPS
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.methods.hmc import HMC, NUTS
from posterior_inpainting.inference.methods.langevin import MALA, ULA
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.noise_matched_gibbs import NoiseMatchedGibbs
from posterior_inpainting.inference.methods.noise_matched_smc import NoiseMatchedSMC
from posterior_inpainting.inference.methods.noise_matched_tempering import NoiseMatchedTempering
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.particle_gibbs import ParticleGibbs
from posterior_inpainting.inference.methods.pigdm import PiGDM
from posterior_inpainting.inference.methods.repaint import RePaint
from posterior_inpainting.inference.methods.smc import TemperedSMC
from posterior_inpainting.inference.methods.tempering import ParallelTempering
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.methods.variational import Variational
from posterior_inpainting.inference.results.blending import blend
from posterior_inpainting.inference.results.convert import load, save
from posterior_inpainting.inference.results.recover import recover
from posterior_inpainting.inference.training.adversarial_losses import R1, WassersteinGP
from posterior_inpainting.inference.training.bayes_by_backprop import BayesByBackprop
from posterior_inpainting.inference.training.denoising_score_matching import (
    DenoisingScoreMatching,
    FillLikelihood,
)
from posterior_inpainting.inference.training.expert_losses import ExpertLikelihood, ExpertScoreMatching
from posterior_inpainting.inference.training.loss import Loss
from posterior_inpainting.inference.training.noise_of_projections import Projection, fit_noise, project
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.inference.training.train import Training, train
from posterior_inpainting.inference.training.train_gan import AdversarialTraining, train_gan
from posterior_inpainting.inference.training.two_path import TwoPathObjective
from posterior_inpainting.inference.windows import infer_in_windows

__all__ = [
    "DPS",
    "HMC",
    "MALA",
    "MAP",
    "NUTS",
    "R1",
    "ULA",
    "AdversarialTraining",
    "Alternating",
    "Approach",
    "BayesByBackprop",
    "Calibration",
    "ChEES",
    "ConditionalDiffusion",
    "DenoisingScoreMatching",
    "DiffPIR",
    "Draws",
    "Exact",
    "ExpertLikelihood",
    "ExpertScoreMatching",
    "FillLikelihood",
    "Gibbs",
    "Loss",
    "Method",
    "Nested",
    "NoiseMatchedGibbs",
    "NoiseMatchedSMC",
    "NoiseMatchedTempering",
    "ParallelTempering",
    "ParticleGibbs",
    "PiGDM",
    "PixelCrossEntropy",
    "Plan",
    "Problem",
    "Projection",
    "RePaint",
    "Schedule",
    "StepDoubling",
    "TemperedSMC",
    "Training",
    "TwoStage",
    "TwoPathObjective",
    "Variational",
    "WassersteinGP",
    "blend",
    "calibrate",
    "calibration_plots",
    "catalogue",
    "compare",
    "diagnostics",
    "early_stopping",
    "early_stopping_plot",
    "fit_noise",
    "infer",
    "infer_in_windows",
    "infer_many",
    "load",
    "plots",
    "project",
    "prune",
    "pruning_curve",
    "recover",
    "sample",
    "save",
    "score_real",
    "scores",
    "step_doubling",
    "train",
    "train_gan",
]
