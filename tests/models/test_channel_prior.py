"""The prior of channels: its moments, what it says of channels that are not seen, and what a fit makes of it."""

import math

import pytest
import torch

from posterior_inpainting.models import Observation, observations
from posterior_inpainting.models.fields import Matern
from posterior_inpainting.models.fields.channel_prior import ChannelPrior, coordinates, moments
from posterior_inpainting.models.gaussian_process import GaussianProcess
from posterior_inpainting.models.images.photographs import held_out

#: Green, red, blue: means, log sds, slopes of red and blue on green, of blue on red's innovation.
LOCATION = torch.tensor([0.5, 0.4, 0.3, -2.0, -3.0, -3.5, 0.6, -0.4, 0.3], dtype=torch.double)
ORDER = [1, 0, 2]


def law(seed=0):
    """A covariance of the coordinates that ties all of them together."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(9, 9, generator=generator, dtype=torch.double)
    scale = torch.tensor([0.05] * 3 + [0.3] * 3 + [0.2] * 3, dtype=torch.double)
    return scale[:, None] * (torch.eye(9) + mixing @ mixing.T / 9) * scale / 2


def rows(count, seed=0):
    """Coordinates of images, Gaussian."""
    torch.manual_seed(seed)
    return torch.distributions.MultivariateNormal(LOCATION, law()).sample((count,))


def prior_of(phi):
    """The prior that was learnt from images of these coordinates, in the order of the image's channels."""
    mean, factor = moments(phi, 3)
    back = torch.tensor(ORDER).argsort()
    return ChannelPrior(mean[:, back], (factor @ factor.mT)[:, back][:, :, back])


@pytest.fixture(scope="module")
def prior():
    return prior_of(rows(2000))


class TestMoments:
    def test_there_and_back(self):
        phi = rows(5)
        mean, factor = moments(phi, 3)
        torch.testing.assert_close(coordinates(mean, factor @ factor.mT), phi)

    def test_slopes_do_not_know_of_contrast(self):
        mean, factor = moments(rows(5), 3)
        weak, strong = (coordinates(mean, c * factor @ factor.mT) for c in (1.0, 9.0))
        torch.testing.assert_close(weak[:, 6:], strong[:, 6:])
        torch.testing.assert_close(strong[:, 3:6] - weak[:, 3:6], torch.full((5, 3), math.log(3.0)).double())

    def test_law_is_that_of_the_images(self, prior):
        location, covariance = prior.law(ORDER)
        phi = rows(2000)
        # But for half a grey level that every channel has beyond the others.
        torch.testing.assert_close(location, phi.mean(0), atol=1e-2, rtol=0)
        torch.testing.assert_close(covariance, phi.T.cov(), atol=1e-2, rtol=0)
        other, spread = prior.law([0, 1, 2])
        assert (other - location).abs().max() > 0.2
        assert (spread - covariance).abs().max() > 0.05

    def test_learning_takes_the_moments_of_pixels(self):
        images = torch.rand(12, 3, 5, 7)
        learnt = ChannelPrior.learn(images)
        apart = images[3].double() - learnt.means[3].reshape(3, 1, 1)
        torch.testing.assert_close(learnt.means, images.double().mean((2, 3)))
        expected = torch.einsum("crk,drk->cd", apart, apart) / 35
        torch.testing.assert_close(learnt.covariances[3], expected)


class TestUnseen:
    """Against pixels of many images whose coordinates are drawn given those of the seen channel, by plain algebra."""

    @pytest.mark.parametrize("known", [1, 2])
    def test_moments_of_pixels(self, prior, known):
        location, covariance = prior.law(ORDER)
        phi = location + 0.5 * covariance.diagonal().sqrt()
        seen = [0, 3] if known == 1 else [0, 1, 3, 4, 6]
        hidden = [i for i in range(9) if i not in seen]
        gain = covariance[hidden][:, seen] @ covariance[seen][:, seen].inverse()
        centre = location[hidden] + gain @ (phi[seen] - location[seen])
        left = covariance[hidden][:, hidden] - gain @ covariance[seen][:, hidden]
        count = 200_000
        every = phi.repeat(count, 1)
        every[:, hidden] = torch.distributions.MultivariateNormal(centre, left).sample((count,))
        mean, factor = moments(every, 3)
        pixels = mean + (factor @ torch.randn(count, 3, 1, dtype=torch.double)).squeeze(-1)
        contrast = factor[0, :known, :known] @ factor[0, :known, :known].T
        found_mean, found = prior.unseen(ORDER, phi, contrast)
        # A mean has the error of its draws, also of the 4,096 inside, and a covariance that of its products.
        apart = pixels - pixels.mean(0)
        products = apart[:, :, None] * apart[:, None]
        share = math.sqrt(1 / count + 1 / 4096)
        assert ((found_mean - pixels.mean(0)).abs() <= 4 * share * pixels.std(0))[known:].all()
        assert ((found - products.mean(0)).abs() <= 4 * share * products.std(0) + 1e-12).all()
        # What the coordinates' mean alone would say is too little.
        plain = phi.clone()
        plain[hidden] = centre
        _, factor = moments(plain, 3)
        too_little = (factor @ factor.T)[known:, known:].diagonal()
        missed = (products.mean(0)[known:, known:].diagonal() - too_little) / products.std(0).diagonal()[
            known:
        ]
        assert (missed > 4 * share).all()

    def test_common_parts_of_pixels_keep_slopes(self, prior):
        """A covariance that is larger by what pixels share has the same slopes, and leaves as much open."""
        location, _ = prior.law(ORDER)
        contrast = (2 * location[3]).exp().reshape(1, 1)
        (mean, small), (other, large) = (prior.unseen(ORDER, location, c * contrast) for c in (1, 6))
        torch.testing.assert_close(mean, other)
        torch.testing.assert_close(small[1:, 0] / small[0, 0], large[1:, 0] / large[0, 0])
        left = [c[1:, 1:] - c[1:, :1] @ c[:1, 1:] / c[0, 0] for c in (small, large)]
        torch.testing.assert_close(*left)


class TestFit:
    def test_hidden_channels_are_the_priors_and_it_is_said(self, prior):
        image = torch.rand(3, 8, 8)
        mask = observations.channels(image.shape, keep=1)
        with pytest.warns(
            UserWarning, match="channels, 0 and 2 not seen at all: how they go .* is that of the images of"
        ):
            model = GaussianProcess.fit(Observation(image, mask), Matern(1.5), colours=prior)
        assert model.unseen_channels == (0, 2)
        slopes = model.covariance[[0, 2], 1] / model.covariance[1, 1]
        location, covariance = prior.law(ORDER)
        phi = [model.mean[1].double().flatten(), model.covariance[1, 1].log()[None] / 2]
        apart = torch.cat(phi) - location[[0, 3]]
        gain = covariance[6:8][:, [0, 3]] @ covariance[[0, 3]][:, [0, 3]].inverse()
        expected = location[6:8] + gain @ apart
        error = covariance[6:8, 6:8].diagonal().sqrt() / math.sqrt(4096)
        assert ((slopes - expected).abs() < 4 * error).all()
        with pytest.warns(UserWarning, match="how they go with the others is assumed"):
            blind = GaussianProcess.fit(Observation(image, mask), Matern(1.5), colours=None)
        assert blind.unseen_channels == (0, 2)
        assert ((blind.covariance[[0, 2], 1] / blind.covariance[1, 1] - expected).abs() > 8 * error).all()

    def test_nothing_is_said_where_all_channels_are_seen(self, prior):
        image = torch.rand(3, 8, 8)
        mask = observations.channels(image.shape, keep=1) | observations.scatter(image.shape, keep=0.1)
        assert GaussianProcess.fit(Observation(image, mask), Matern(1.5)).unseen_channels == ()

    @pytest.mark.parametrize("correlation", [0.9, 0.0, -0.9])
    def test_learns_how_channels_go_together(self, correlation):
        shape = (2, 16, 16)
        covariance = 0.04 * torch.tensor([[1.0, correlation], [correlation, 1.0]])
        truth = GaussianProcess(Matern(1.0), shape, mean=0.5, covariance=covariance, noise=0.02)
        image = truth().detach()
        mask = observations.scatter(shape, keep=0.7, seed=3)
        fitted = GaussianProcess.fit(Observation(image, mask, any_values=True), Matern(2.0))
        found = fitted.covariance[0, 1] / fitted.covariance.diagonal().prod().sqrt()
        # Of some 80 independent places that a field of this lengthscale has here, by Fisher's transformation.
        apart = math.atanh(float(found)) - math.atanh(correlation)
        assert abs(apart) < 4 / math.sqrt(80)
        assert fitted.log_evidence(image, mask) > truth.log_evidence(image, mask)

    @pytest.mark.long
    def test_intervals_hold_what_was_hidden(self):
        """Images of the prior, one channel seen: mean squares of standardised errors are 1, over images."""
        prior, ratios = prior_of(rows(2000)), {True: [], False: []}
        for phi in rows(60, seed=1):
            mean, factor = moments(phi, 3)
            back = torch.tensor(ORDER).argsort()
            covariance = (factor @ factor.T)[back][:, back]
            truth = GaussianProcess(
                Matern(1.0), (3, 12, 12), mean=mean[back], covariance=covariance, noise=0.01
            )
            image = truth().detach()
            mask = observations.channels(image.shape, keep=1)
            seen = Observation(image, mask, any_values=True)
            for learnt in ratios:
                with pytest.warns(UserWarning, match="not seen at all"):
                    model = GaussianProcess.fit(seen, Matern(1.0), colours=prior if learnt else None)
                law = model.pixel_posterior(image, mask)
                variance = law.variance + model.noise.double() ** 2
                ratios[learnt].append(float(((image - law.mean).square() / variance)[~mask].mean()))
        found = torch.tensor([ratios[True], ratios[False]], dtype=torch.double)
        error = found.std(1) / math.sqrt(found.shape[1])
        assert abs(float(found[0].mean()) - 1) < 4 * float(error[0])
        assert float(found[1].mean()) - 1 > 4 * float(error[1])


def test_photographs_are_coloured_better_than_in_grey():
    """Eight photographs that it was not learnt from, from green alone."""
    squares, inside = {"ours": [], "grey": []}, []
    for image in held_out(16):
        mask = observations.channels(image.shape, keep=1)
        with pytest.warns(UserWarning, match="0 and 2 not seen at all: .* is that of photographs"):
            model = GaussianProcess.fit(Observation(image, mask), Matern(3.0))
        law = model.pixel_posterior(image, mask)
        error = (image - law.mean)[~mask]
        squares["ours"].append(float(error.square().mean()))
        squares["grey"].append(float((image[1] - image)[~mask].square().mean()))
        sd = (law.variance + model.noise.double() ** 2).sqrt()[~mask]
        inside.append(float((error.abs() < 1.96 * sd).double().mean()))
    assert sum(squares["ours"]) < 0.8 * sum(squares["grey"])
    # Whole photographs are off together: that many of eight are.
    assert sum(inside) / 8 > 0.8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda prior: ChannelPrior.learn(torch.rand(9, 3, 4, 4)),
            "9 images of 3 channels; expected more than phi",
        ),
        (lambda prior: ChannelPrior.learn([]), "0 images of 0 channels; expected more"),
        (
            lambda prior: GaussianProcess.fit(
                Observation(torch.rand(1, 8, 8), torch.ones(1, 8, 8) > 0), colours=prior
            ),
            "colours is of 3 channels; expected 1, as the image has",
        ),
        (
            lambda prior: GaussianProcess.fit(
                Observation(torch.rand(1, 8, 8), torch.ones(1, 8, 8) > 0), colours="paintings"
            ),
            "colours='paintings'; expected a ChannelPrior, 'photographs' or None",
        ),
    ],
)
def test_bad_input(prior, make, message):
    with pytest.raises(ValueError, match=message):
        make(prior)
