"""A 4 x 4 Ising field, all of whose 65,536 states are at hand: networks trained on it meet the exact conditionals.

p(x) is proportional to exp(coupling * sum of products of neighbours + field * sum of spins), spins -1 and 1.
"""

import torch

from posterior_inpainting.inference import train
from posterior_inpainting.inference.training.pixel_cross_entropy import PixelCrossEntropy
from posterior_inpainting.models import observations
from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.networks.constraint import ConstraintNetwork
from posterior_inpainting.models.networks.masked_convolution import GatedPixelCNN
from posterior_inpainting.models.pixel_constrained import PixelConstrained

SHAPE = (1, 4, 4)
MASKS = {
    "bottom half": observations.half(SHAPE, hide="bottom"),
    "top half": observations.half(SHAPE, hide="top"),
    "scatter": observations.scatter(SHAPE, 0.5),
    "box of 2 x 2": observations.box(SHAPE, 1, 1, 2, 2),
}


def states(coupling=0.3, field=0.1):
    """Every image ``(65536, 1, 4, 4)`` and its probability, in double precision."""
    images = (torch.arange(2**16)[:, None] >> torch.arange(15, -1, -1) & 1).float().reshape(-1, *SHAPE)
    spins = 2 * images - 1
    beside, below = spins[..., 1:] * spins[..., :-1], spins[..., 1:, :] * spins[..., :-1, :]
    energy = coupling * (beside.sum((1, 2, 3)) + below.sum((1, 2, 3))) + field * spins.sum((1, 2, 3))
    return images, torch.softmax(energy.double(), 0)


def trained(images, probabilities, steps=400, batch=500, loss=None, seed=0, learning_rate=1e-2):
    """Networks trained on independent draws, each of which is seen once."""
    torch.manual_seed(seed)
    model = PixelConstrained(
        GatedPixelCNN(SHAPE, 2, features=16, layers=2, first=7), ConstraintNetwork(SHAPE, 2, features=16)
    )
    data = images[torch.multinomial(probabilities, steps * batch, replacement=True)]
    masks = torch.cat(
        [torch.rand(2000, *SHAPE) < torch.rand(2000, 1, 1, 1), observations.random_masks(SHAPE, 2000)]
    )
    options = {
        "epochs": 1,
        "batch_size": batch,
        "learning_rate": learning_rate,
        "progress": False,
        "seed": seed,
    }
    train(model, model.guide, data, masks=masks, loss=loss or PixelCrossEntropy(), **options)
    return model.requires_grad_(False).eval()


def distances(model, images, probabilities, seen=20, names=tuple(MASKS)):
    """Total variation between the exact law of hidden pixels and the networks', averaged over ``seen`` images.

    ``prior``: the prior network's own conditional, by enumeration, of all hidden pixels jointly; ``constrained``: the
    same of the constrained law; ``pixel``: the constrained law of one pixel given those before it and what is seen,
    averaged over pixels and, with their exact probability, over what came before.
    """
    whole = AutoregressiveImage(model._modules["prior"], model.law)
    found = {}
    for name in names:
        mask, rows = MASKS[name], []
        for image in images[torch.multinomial(probabilities, seen)]:
            matching = ((images == image) | ~mask).flatten(1).all(1)
            exact = probabilities[matching] / probabilities[matching].sum()
            each = model.constrained_law(image, mask).log_conditionals(images[matching])[:, ~mask].double()
            completions = images[matching][:, ~mask]
            pixels = []
            for i in range(completions.shape[1]):
                # States count up in binary, so that those of one prefix, and in it those of a value, are neighbours.
                joint = exact.reshape(2**i, 2, -1).sum(-1)
                one = torch.where(completions[:, i] == 1, each[:, i].exp(), 1 - each[:, i].exp())
                error = (joint[:, 1] / joint.sum(1) - one.reshape(2**i, -1)[:, 0]).abs()
                pixels.append((error * joint.sum(1)).sum())
            rows.append(
                torch.stack(
                    [
                        (exact - torch.softmax(whole.log_prob(images[matching]).double(), 0)).abs().sum() / 2,
                        (exact - each.sum(1).exp()).abs().sum() / 2,
                        torch.stack(pixels).mean(),
                    ]
                )
            )
        prior, constrained, pixel = torch.stack(rows).mean(0).tolist()
        found[name] = {"prior": prior, "constrained": constrained, "pixel": pixel}
    return found
