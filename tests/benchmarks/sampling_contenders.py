"""The contenders of `sampling.py`, each drawing from one density: p(z | seen pixels) of one decoder.

A contender takes a ``Case`` and returns a ``Result``: codes ``(chain, draw, latent)``, seconds with warm-up and
without compilation, seconds of compilation, and the gradients that its chains asked for, warm-up included.
Seconds are the process's CPU seconds: on one thread, what a clock shows on a machine that does nothing else.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as jdist
import optax
import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops import integrator

from posterior_inpainting.inference import ChEES, Plan, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LatentCode, Observation


@dataclass(frozen=True)
class Case:
    """One posterior, and how to draw from it."""

    model: LatentCode
    observation: Observation
    warmup: int
    draws: int
    chains: int
    seed: int = 0

    def problem(self) -> Problem:
        """Return what our samplers take."""
        return Problem(self.model, (self.observation.image, self.observation.mask))

    def starts(self) -> np.ndarray:
        """Draw the vectorised contenders' starts from the prior: the same for each."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(self.chains, self.model.latent, generator=generator).numpy()


@dataclass(frozen=True)
class Result:
    """What a contender drew, and at what cost."""

    codes: np.ndarray
    seconds: float
    compile_seconds: float
    gradients: int


def ours(case: Case, method: ChEES | None = None) -> Result:
    """Draw by this package's ``ChEES()``, with its default settings."""
    method = ChEES() if method is None else method
    start = time.process_time()
    drawn = method.run(case.problem(), Plan(case.draws, case.chains, Streams(case.seed)))
    seconds = time.process_time() - start
    return Result(drawn.latents["z"].numpy(), seconds, 0.0, drawn.attrs["gradient_evaluations"])


def pyro_nuts(case: Case, *, dense: bool = False) -> Result:
    """Draw by ``pyro.infer.MCMC(NUTS(model))``, chain after chain, as any user of Pyro would."""
    count, original = 0, integrator.potential_grad

    def counted(*args):
        nonlocal count
        count += 1
        return original(*args)

    integrator.potential_grad = counted
    pyro.set_rng_seed(case.seed)
    start = time.process_time()
    try:
        codes = []
        for _ in range(case.chains):  # what num_chains does on one core, without its warning
            mcmc = MCMC(
                NUTS(case.model, full_mass=dense),
                num_samples=case.draws,
                warmup_steps=case.warmup,
                disable_progbar=True,
            )
            mcmc.run(case.observation.image, case.observation.mask)
            codes.append(mcmc.get_samples()["z"].reshape(case.draws, -1))
    finally:
        integrator.potential_grad = original
    return Result(torch.stack(codes).numpy(), time.process_time() - start, 0.0, count)


def numpyro_nuts(case: Case, *, dense: bool = False) -> Result:
    """Draw by NumPyro's vectorised NUTS."""
    data = _jax_data(case)

    def model(data: dict):
        z = numpyro.sample("z", jdist.Normal(jnp.zeros(case.model.latent), 1.0).to_event(1))
        numpyro.sample("image", jdist.Normal(*_decode(data["weights"], z)).to_event(1), obs=data["target"])

    def run(key, starts, data):
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(model, dense_mass=dense),
            num_warmup=case.warmup,
            num_samples=case.draws,
            num_chains=case.chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        first, second = jax.random.split(key)
        mcmc.warmup(first, data, init_params={"z": starts}, extra_fields=("num_steps",), collect_warmup=True)
        steps = mcmc.get_extra_fields()["num_steps"].sum()
        mcmc.run(second, data, extra_fields=("num_steps",))
        return mcmc.get_samples(group_by_chain=True)["z"], steps + mcmc.get_extra_fields()["num_steps"].sum()

    (codes, steps), seconds, compile_seconds = _timed(run, case, data, dense)
    return Result(np.asarray(codes), seconds, compile_seconds, int(steps))


def blackjax_chees(case: Case) -> Result:
    """Draw by BlackJAX: ``chees_adaptation`` with its diagonal scales, then ``dynamic_hmc`` with what it found."""
    data = _jax_data(case)

    def run(key, starts, data):
        def log_density(z):
            mean, scale = _decode(data["weights"], z)
            residual = (data["target"] - mean) / scale
            return -0.5 * (z @ z) - (0.5 * residual**2 + jnp.log(scale) * jnp.ones_like(mean)).sum()

        first, second = jax.random.split(key)
        # Its scales are off by default; without them some runs end at R-hat 2.
        adaptation = blackjax.chees_adaptation(log_density, case.chains, mass_matrix_estimation="diagonal")
        (states, parameters), info = adaptation.run(first, starts, 0.1, optax.adam(0.5), case.warmup)
        steps = info.info.num_integration_steps.sum()
        kernel = blackjax.dynamic_hmc(log_density, **parameters).step

        def one(states, key):
            states, info = jax.vmap(kernel)(jax.random.split(key, case.chains), states)
            return states, (states.position, info.num_integration_steps)

        _, (codes, counts) = jax.lax.scan(one, states, jax.random.split(second, case.draws))
        return codes.swapaxes(0, 1), steps + counts.sum()

    (codes, steps), seconds, compile_seconds = _timed(run, case, data)
    return Result(np.asarray(codes), seconds, compile_seconds, int(steps))


CONTENDERS = {
    "Pyro NUTS": pyro_nuts,
    "Pyro NUTS, dense metric": functools.partial(pyro_nuts, dense=True),
    "NumPyro NUTS, vectorised": numpyro_nuts,
    "NumPyro NUTS, vectorised, dense metric": functools.partial(numpyro_nuts, dense=True),
    "BlackJAX ChEES": blackjax_chees,
    "ours, ChEES": ours,
}

_compiled: dict[tuple, Any] = {}


def _timed(run, case: Case, data: dict, dense: bool = False) -> tuple[Any, float, float]:
    """Compile ahead of time, once for each shape, then run: result, seconds of the run, of compilation."""
    arguments = (jax.random.key(case.seed), jnp.asarray(case.starts()), data)
    shapes = jax.tree.map(lambda leaf: leaf.shape, data)
    key = (run.__qualname__, case.warmup, case.draws, case.chains, dense, str(shapes))
    start = time.process_time()
    if key not in _compiled:
        _compiled[key] = jax.jit(run).lower(*arguments).compile()
    compile_seconds = time.process_time() - start
    start = time.process_time()
    result = jax.block_until_ready(_compiled[key](*arguments))
    return result, time.process_time() - start, compile_seconds


def _jax_data(case: Case) -> dict:
    """Copy the decoder's weights, its last layer at seen pixels only, and those pixels: the same work as ours."""
    decoder: Any = case.model.decoder
    seen = case.observation.mask.expand(case.observation.image.shape).flatten()
    layers = [(layer.weight, layer.bias) for layer in decoder.trunk if hasattr(layer, "weight")]
    weights = {"trunk": layers, "mean": (decoder.mean_head.weight[seen], decoder.mean_head.bias[seen])}
    if decoder.scale_rank is None:
        weights["scale"] = decoder.mean_and_scale(torch.zeros(decoder.latent))[1].flatten()[0]
    else:
        narrow, wide = decoder.scale_head
        weights["scale"] = (narrow.weight, narrow.bias, wide.weight[seen], wide.bias[seen])
        weights["floor"] = torch.tensor(decoder.floor)
    data = {"weights": weights, "target": case.observation.image.flatten()[seen]}
    return jax.tree.map(lambda tensor: jnp.asarray(tensor.detach().numpy()), data)


def _decode(weights: dict, z):
    hidden = z
    for weight, bias in weights["trunk"]:
        hidden = jax.nn.silu(weight @ hidden + bias)
    mean = jax.nn.sigmoid(weights["mean"][0] @ hidden + weights["mean"][1])
    if "floor" not in weights:
        return mean, weights["scale"]
    narrow, narrow_bias, wide, wide_bias = weights["scale"]
    return mean, weights["floor"] + jax.nn.softplus(wide @ (narrow @ hidden + narrow_bias) + wide_bias)


def check_densities(case: Case) -> float:
    """Return the largest difference of log densities between ours, Pyro's trace and JAX, up to a constant."""
    z = torch.from_numpy(case.starts())[:4]
    log_densities = []
    for closed_form in (True, False):
        potential = Potential(case.problem(), closed_form=closed_form)
        log_densities.append(sum(potential(z)).numpy())
    data = _jax_data(case)

    def log_density(z):
        mean, scale = _decode(data["weights"], z)
        prior = jdist.Normal(0.0, 1.0).log_prob(z).sum()
        return prior + jdist.Normal(mean, scale).log_prob(data["target"]).sum()

    log_densities.append(np.asarray(jax.vmap(log_density)(jnp.asarray(z.numpy()))))
    reference = log_densities[0]
    return max(float(np.abs(other - reference).max() / np.abs(reference).max()) for other in log_densities)
