"""What `posterior_inpainting.inference` offers, and where each name comes from: read at run time, too."""

from . import catalogue
from .catalogue.approach import Approach
from .comparison.compare import compare
from .contract import Draws, Method, Plan, Problem
from .drawing_in_windows import infer_in_windows
from .evaluation import calibration_plots, diagnostics, plots, scores
from .evaluation.calibration import Calibration, calibrate
from .evaluation.early_stopping import early_stopping, early_stopping_plot
from .evaluation.held_out import score_real
from .evaluation.pruning import prune, pruning_curve
from .evaluation.step_doubling import StepDoubling, step_doubling
from .verbs import infer, infer_many, sample
from .going_on import more
from .learning.learn import Learnt, learn
from .methods.alternating import Alternating
from .methods.auto import Auto
from .methods.chees import ChEES
from .methods.conditional_diffusion import ConditionalDiffusion
from .methods.diffpir import DiffPIR
from .methods.dps import DPS
from .methods.exact import Exact
from .methods.gibbs import Gibbs
from .methods.global_local import GlobalLocal
from .methods.hmc import HMC, NUTS
from .methods.langevin import MALA, ULA
from .methods.nested import Nested
from .methods.noise_matched_gibbs import NoiseMatchedGibbs
from .methods.noise_matched_smc import NoiseMatchedSMC
from .methods.noise_matched_tempering import NoiseMatchedTempering
from .methods.optimum import MAP
from .methods.particle_gibbs import ParticleGibbs
from .methods.pigdm import PiGDM
from .methods.repaint import RePaint
from .methods.smc import TemperedSMC
from .methods.tempering import ParallelTempering
from .methods.twisted_smc import TwistedSMC
from .methods.two_stage import TwoStage
from .methods.variational import Variational
from .results.blending import blend
from .results.containers import load, save
from .results.images_of_posterior import completed_images, posterior_mean, seen_pixels
from .results.recover import recover
from .results.trusted import Trusted
from .training.adversarial_losses import R1, WassersteinGP
from .training.bayes_by_backprop import BayesByBackprop
from .training.cycles import Cycles
from .training.denoising_score_matching import (
    DenoisingScoreMatching,
    FillLikelihood,
)
from .training.expert_losses import ExpertLikelihood, ExpertScoreMatching
from .training.importance_bound import ImportanceBound
from .training.last_layer_laplace import last_layer_laplace
from .training.loss import Loss
from .training.noise_of_projections import Projection, fit_noise, project
from .training.pixel_cross_entropy import PixelCrossEntropy
from .training.sample_weights import sample_weights
from .training.schedule import Schedule
from .training.swag import swag
from .training.train import Training, train
from .training.train_gan import AdversarialTraining, train_gan
from .training.two_path import TwoPathObjective
from .training.weight_kernels import SGHMC, SGLD

__all__ = [
    "DPS",
    "HMC",
    "MALA",
    "MAP",
    "NUTS",
    "R1",
    "SGHMC",
    "SGLD",
    "ULA",
    "AdversarialTraining",
    "Alternating",
    "Approach",
    "Auto",
    "BayesByBackprop",
    "Calibration",
    "ChEES",
    "ConditionalDiffusion",
    "Cycles",
    "DenoisingScoreMatching",
    "DiffPIR",
    "Draws",
    "Exact",
    "ExpertLikelihood",
    "ExpertScoreMatching",
    "FillLikelihood",
    "Gibbs",
    "GlobalLocal",
    "ImportanceBound",
    "Learnt",
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
    "Trusted",
    "TwistedSMC",
    "TwoStage",
    "TwoPathObjective",
    "Variational",
    "WassersteinGP",
    "blend",
    "calibrate",
    "calibration_plots",
    "catalogue",
    "compare",
    "completed_images",
    "diagnostics",
    "early_stopping",
    "early_stopping_plot",
    "fit_noise",
    "infer",
    "infer_in_windows",
    "infer_many",
    "more",
    "last_layer_laplace",
    "learn",
    "load",
    "plots",
    "posterior_mean",
    "project",
    "prune",
    "pruning_curve",
    "recover",
    "sample",
    "sample_weights",
    "save",
    "score_real",
    "scores",
    "seen_pixels",
    "step_doubling",
    "swag",
    "train",
    "train_gan",
]
