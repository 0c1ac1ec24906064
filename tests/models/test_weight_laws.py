"""Laws of weights beyond mean-field, and `WeightDraws` of them."""

import numpy as np
import pytest
import torch
from digit import HALF, SHAPE
from pyro import poutine
from statistics_of_draws import assert_moments
from torch import nn

from posterior_inpainting.inference import ChEES, Nested, infer
from posterior_inpainting.models import Observation, WeightDraws
from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
from posterior_inpainting.models.random_weights.weight_laws import LowRankGaussian, WeightSamples


def decoder(seed=0, encoder=True):
    torch.manual_seed(seed)
    made = MultilayerDecoder(2, SHAPE, (4,), scale_rank=2)
    made.encoder = MaskedEncoder(2, SHAPE, (4,)) if encoder else None
    return made


@pytest.fixture
def ensemble():
    return WeightSamples.of_networks([decoder(seed) for seed in range(4)])


class TestLowRankGaussian:
    @pytest.fixture
    def law(self):
        generator = torch.Generator().manual_seed(0)
        network = nn.Linear(2, 2)
        parts = [
            {
                path: torch.randn(*lead, *p.shape, generator=generator)
                for path, p in network.named_parameters()
            }
            for lead in ((), (), (3,))
        ]
        parts[1] = {path: value.square() for path, value in parts[1].items()}
        return LowRankGaussian(network, *parts)

    def draws(self, law, count=20_000):
        torch.manual_seed(1)
        drawn = law.draw_weights(count)
        return torch.cat([drawn["weight"].flatten(1), drawn["bias"]], 1).double()

    def moments(self, law):
        """Equation 1 of Maddox et al., over all weights together."""
        mean, variance, columns = (
            torch.cat([part["weight"].flatten(lead), part["bias"].flatten(lead)], -1).double()
            for part, lead in ((law.mean, 0), (law.variance, 0), (law.deviations, 1))
        )
        return mean, 0.5 * (variance.diag() + columns.T @ columns / (law.rank - 1))

    def test_moments(self, law):
        mean, covariance = self.moments(law)
        # Along other directions than the axes too: covariances count, those between tensors among them.
        turned = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(3)))[0].double()
        values = self.draws(law) @ turned
        sd = (turned.T @ covariance @ turned).diag().sqrt()
        assert_moments(values.numpy()[None], (mean @ turned).numpy(), sd.numpy(), independent=True)

    def test_noise_that_is_drawn_for_each_tensor_fails(self, law):
        """What tensors have in common is seen by the test above."""
        mean, covariance = self.moments(law)
        apart = covariance.clone()
        apart[:4, 4:] = apart[4:, :4] = 0
        direction = torch.linalg.eigh(covariance - apart)[1][:, -1]
        sd = (direction @ apart @ direction).sqrt().reshape(1)
        values = (self.draws(law) @ direction).reshape(1, -1, 1)
        with pytest.raises(AssertionError, match="biased: the variance"):
            assert_moments(
                values.numpy(), (mean @ direction).reshape(1).numpy(), sd.numpy(), independent=True
            )

    def test_covariance_of_one_path(self, law):
        torch.testing.assert_close(law.covariance("weight").double(), self.moments(law)[1][:4, :4])

    def test_refused(self):
        ones = {"weight": torch.ones(1, 1)}
        network = nn.Linear(1, 1, bias=False)
        with pytest.raises(ValueError, match="at least 2"):
            LowRankGaussian(network, ones, ones, {"weight": torch.ones(1, 1, 1)})
        with pytest.raises(ValueError, match="expected the same ones"):
            LowRankGaussian(network, ones, {}, {"weight": torch.ones(2, 1, 1)})


class TestSamples:
    def test_draws_are_the_networks(self, ensemble):
        drawn = ensemble.draw_weights(2)
        assert torch.equal(drawn["trunk.0.weight"][1], decoder(3).trunk[0].weight)
        assert "encoder.head.bias" in drawn

    def test_refused(self, ensemble):
        with pytest.raises(ValueError, match="count=5 networks; expected 1 to 4"):
            ensemble.draw_weights(5)
        with pytest.raises(ValueError, match="no network"):
            WeightSamples.of_networks([])
        with pytest.raises(ValueError, match="differ in name or shape"):
            WeightSamples.of_networks([decoder(), decoder(encoder=False)])
        with pytest.raises(ValueError, match=r"'weight' has shape \(3, 2\)"):
            WeightSamples(nn.Linear(2, 1), {"weight": torch.zeros(3, 2)})
        with pytest.raises(ValueError, match="one number"):
            WeightSamples(nn.Linear(2, 1), {"weight": torch.zeros(3, 1, 2), "bias": torch.zeros(2, 1)})


class TestWeightDraws:
    def test_every_network_has_its_own_weights_and_encoder(self, ensemble):
        model, z = WeightDraws(ensemble, 4), torch.randn(3, 2)
        for index, network in enumerate(model.networks):
            torch.testing.assert_close(network.decoder(z), decoder(index)(z))
        image = torch.rand(SHAPE)
        for index in range(4):
            guide = poutine.condition(model.guide, data={"network": torch.tensor(index)})
            law = poutine.trace(guide).get_trace(image, HALF).nodes["z"]["fn"]
            torch.testing.assert_close(law.base_dist.loc, decoder(index).encoder(image, HALF)[0])

    def test_the_guide_of_a_batch_is_that_of_each(self, ensemble):
        model, images, network = WeightDraws(ensemble, 4), torch.rand(3, *SHAPE), torch.tensor([2, 0, 3])
        law = model._encode(network, images, HALF)
        assert law.batch_shape == (3,)
        for index, image, loc in zip(network, images, law.base_dist.loc, strict=True):
            torch.testing.assert_close(loc, model._encode(index, image, HALF).base_dist.loc)

    def test_one_encoder_for_all(self, ensemble):
        weights = {p: v for p, v in ensemble.weights.items() if not p.startswith("encoder.")}
        law = WeightSamples(decoder(encoder=False), weights)
        with pytest.raises(ValueError, match="carries no encoder"):
            WeightDraws(law, 2)
        model = WeightDraws(law, 4, encoder=MaskedEncoder(2, SHAPE, (4,)))
        assert len(model.encoders) == 1
        assert model._encode(torch.tensor([1, 2]), torch.rand(2, *SHAPE), None).batch_shape == (2,)

    def test_evidence_tells_networks_apart(self):
        """Of two networks, one of which has the image's own mean, the other is hardly drawn."""
        good, bad = decoder(0), decoder(0)
        with torch.no_grad():
            bad.mean_head.bias.fill_(4.0)
        image = good(torch.zeros(2)).detach()
        model = WeightDraws(WeightSamples.of_networks([good, bad]), 2)
        posterior = infer(
            model, Observation(image, HALF), Nested(ChEES(warmup=30)), draws=20, chains=4, progress=False
        ).posterior
        assert float(np.mean(posterior["network"] == 0)) > 0.99
