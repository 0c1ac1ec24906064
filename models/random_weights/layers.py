r"""Networks whose weights are random: a prior over every weight, and a mean-field Gaussian learnt beside it.

Blundell et al. 2015, *Weight Uncertainty in Neural Networks* (Bayes by Backprop), section 3.2. Model and guide:

.. math:: w_j \sim p(w_j), \qquad q(w_j) = N(\mu_j, \sigma_j^2), \qquad \sigma_j = \log(1 + e^{\rho_j}).

One draw of the weights is one network: everything that goes through it, all images and all pixels, sees the same
weights. Local reparametrisation, which draws noise at the units instead, is an option for training alone.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from pyro.nn import PyroModule, pyro_method
from pyro.poutine.runtime import am_i_wrapped
from torch import Tensor, nn
from torch.distributions import kl_divergence
from torch.nn import functional as F

from posterior_inpainting.models.random_weights.given_weights import CallOf, Weights, run_with_weights
from posterior_inpainting.models.random_weights.local_reparametrisation import check_local, noise_at_units
from posterior_inpainting.models.random_weights.weight_priors import ScaleMixture, law_of_weights

__all__ = ["BayesianConv2d", "BayesianLinear", "BayesianModule", "Prior", "bayesian"]

#: Law of a single weight, or a function of a parameter's path and value that returns one.
Prior: TypeAlias = TorchDistributionMixin | Callable[[str, Tensor], TorchDistributionMixin]

#: Marks sites that all data share, so that minibatches share their divergence out (`BayesByBackprop`).
_GLOBAL = {"is_global": True}


def bayesian(module: nn.Module, prior: Prior | None = None, **settings: Any) -> BayesianModule:
    """Turn a network into one with random weights; the network that is given stays as it is.

    Parameters
    ----------
    module
        Any ``nn.Module``. Its present parameters become the posterior's means.
    prior, settings
        As for :class:`BayesianModule`.

    Examples
    --------
    >>> from posterior_inpainting.models.networks import MultilayerDecoder
    >>> decoder = bayesian(MultilayerDecoder(2, (1, 8, 8), widths=(16,)))
    >>> weights = decoder.draw_weights(3)
    >>> mean, scale = decoder.forward_with(weights, torch.zeros(5, 2), method="mean_and_scale")
    >>> tuple(mean.shape)  # three decoders, five codes
    (3, 5, 1, 8, 8)
    """
    return BayesianModule(copy.deepcopy(module), prior, **settings)


class BayesianModule(PyroModule):
    """A network with random weights: called in a Pyro model it draws them from the prior and runs.

    Every random parameter is a sample site under its dotted path. ``guide`` draws the same sites from the
    learnt Gaussians. Both are ordinary Pyro, so that SVI, ``train``, and MCMC over the weights take them.

    Parameters
    ----------
    module
        The network, adopted: it is kept as ``mean``, with the posterior's means for its parameters.
    prior
        Law of a single weight, or a function of path and parameter that returns one; by default Blundell's
        scale mixture.
    posterior_scale
        Standard deviation that every weight's posterior starts from.
    random
        Which parameters are random, from their path; the others stay learnt numbers. All by default.
    local_reparametrisation
        Whether a forward pass in training mode draws the noise at the units of linear layers
        (:mod:`~posterior_inpainting.models.random_weights.local_reparametrisation`). It then has no weights to
        speak of: the divergence enters as a factor, and the guide is empty. In ``eval`` mode, and always in
        ``sample_weights``, ``draw_weights`` and ``forward_with``, weights are drawn explicitly.

    Attributes
    ----------
    mean
        The network at the posterior's mean.

    Raises
    ------
    ValueError
        If no parameter is random; or if local reparametrisation is asked for a parameter outside a linear
        layer, or for a prior without a divergence in closed form.

    Examples
    --------
    >>> net = BayesianModule(nn.Linear(4, 2))
    >>> pyro.poutine.trace(net).get_trace(torch.zeros(3, 4)).stochastic_nodes
    ['weight', 'bias']
    """

    def __init__(
        self,
        module: nn.Module,
        prior: Prior | None = None,
        *,
        posterior_scale: float = 0.01,
        random: Callable[[str], bool] = lambda path: True,
        local_reparametrisation: bool = False,
    ):
        # As in ImageModel: works under either value of Pyro's setting.
        with pyro.settings.context(module_local_params=True):
            super().__init__()
        self.mean = module
        self.prior = ScaleMixture() if prior is None else prior
        paths = [path for path, _ in module.named_parameters() if random(path)]
        if not paths:
            raise ValueError(f"{type(module).__name__} has no parameter that is to be random")
        raw = math.log(math.expm1(posterior_scale))
        # A module's names have no dots.
        self.raw_scale = nn.ParameterDict(
            {p.replace(".", "/"): torch.full_like(module.get_parameter(p), raw) for p in paths}
        )
        self._keys = {path: path.replace(".", "/") for path in paths}
        self._shapes = {path: module.get_parameter(path).shape for path in paths}
        self.local_reparametrisation = local_reparametrisation
        if local_reparametrisation:
            check_local(module, self.posterior(), lambda path: self._prior(path, module))

    def forward(self, *args: Any, method: str = "forward") -> Any:
        """Draw the weights from the prior, then run the network, or another method of it."""
        if self.local_reparametrisation and self.training:
            return self._forward_local(*args, method=method)
        return self.forward_with(self.sample_weights(), *args, method=method)

    @pyro_method
    def sample_weights(self) -> Weights:
        """Draw the weights at their sites, from the prior: for models that run the network more than once."""
        mean = self.mean
        return {path: self._site(path, self._prior(path, mean)) for path in self._shapes}

    @pyro_method
    def guide(self, *args: Any, **kwargs: Any) -> Weights:
        """Draw the weights at their sites from the learnt Gaussians, whatever the arguments are."""
        if self.local_reparametrisation and self.training:
            _ = self.mean, self.raw_scale  # registers the parameters, as the attributes of a PyroModule do
            return {}
        return {path: self._site(path, law) for path, law in self.posterior().items()}

    def posterior(self) -> dict[str, dist.Normal]:
        """Return the learnt law of every random parameter, weight by weight."""
        mean, raw_scale = self.mean, self.raw_scale
        return {
            path: dist.Normal(mean.get_parameter(path), F.softplus(raw_scale[key]), validate_args=False)
            for path, key in self._keys.items()
        }

    def draw_weights(self, count: int) -> Weights:
        """Draw ``count`` networks from the learnt Gaussians: path -> ``(count, *shape)``, without gradients."""
        with torch.no_grad():
            return {path: law.sample((count,)) for path, law in self.posterior().items()}

    def forward_with(
        self,
        weights: Weights,
        *args: Any,
        method: str = "forward",
        paired: bool = False,
        chunk: int | None = None,
    ) -> Any:
        """Run the network, or another method of it, under given weights: each draw of them is one network.

        As :func:`~posterior_inpainting.models.random_weights.given_weights.run_with_weights`; the weights are
        those that ``draw_weights``, ``guide`` or a sampler give.
        """
        return run_with_weights(self.mean, weights, *args, method=method, paired=paired, chunk=chunk)

    def signal_to_noise(self) -> Weights:
        r"""Return :math:`|\mu| / \sigma` of every weight, what pruning ranks them by (section 5.3)."""
        with torch.no_grad():
            return {path: law.loc.abs() / law.scale for path, law in self.posterior().items()}

    def _site(self, path: str, law: Any) -> Tensor:
        return pyro.sample(
            self._pyro_get_fullname(path), law.to_event(len(self._shapes[path])), infer=_GLOBAL
        )

    def _prior(self, path: str, mean: nn.Module) -> Any:
        return law_of_weights(self.prior, path, mean.get_parameter(path))

    def _forward_local(self, *args: Any, method: str) -> Any:
        posterior, mean = self.posterior(), self.mean
        divergences = [kl_divergence(q, self._prior(path, mean)).sum() for path, q in posterior.items()]
        divergence = torch.stack(divergences).sum()
        if am_i_wrapped():  # called as a plain function: there is no one to score for
            pyro.sample(
                self._pyro_get_fullname("divergence"),
                dist.Unit(-divergence, validate_args=False),
                obs=divergence.new_empty(0),
                infer={**_GLOBAL, "is_auxiliary": True},
            )
        with noise_at_units(mean, posterior):
            return CallOf(mean, method)(*args)


class BayesianLinear(BayesianModule):
    """Linear layer with random weights: ``nn.Linear``'s arguments, then those of :class:`BayesianModule`.

    Examples
    --------
    >>> layer = BayesianLinear(3, 2)
    >>> tuple(layer(torch.zeros(5, 3)).shape)
    (5, 2)
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **settings: Any):
        super().__init__(nn.Linear(in_features, out_features, bias), **settings)


class BayesianConv2d(BayesianModule):
    """Convolution with random weights: ``nn.Conv2d``'s arguments, then those of :class:`BayesianModule`.

    The kernel is drawn once and seen by all pixels of all images. There is no local reparametrisation: noise drawn
    pixel by pixel would give every place of an image another kernel.

    Examples
    --------
    >>> layer = BayesianConv2d(1, 4, kernel_size=3, padding=1)
    >>> tuple(layer(torch.zeros(5, 1, 8, 8)).shape)
    (5, 4, 8, 8)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        bias: bool = True,
        **settings: Any,
    ):
        convolution = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        super().__init__(convolution, **settings)
