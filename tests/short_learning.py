"""Learning in seconds, by steps and not by the clock: what tests of kinds of priors share."""

import pytest
import torch

from posterior_inpainting.inference import catalogue, infer
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.learn import learn
from posterior_inpainting.inference.learning.lessons import Lessons
from posterior_inpainting.inference.results.images_of_posterior import completed_images
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models.images.collection import collected


def learner_of(kind, images, masks=None):
    """An untrained learner."""
    return kind(Lessons.of(collected(images, masks), Streams(0), "cpu"), Streams(0))


def trained(kind, images, masks=None, epochs=2):
    """A learner whose phases have gone through the images so often, and what they did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "_EPOCHS", epochs)
        learner = learner_of(kind, images, masks)
        with Streams(0).seeded("learning"):
            records = course.Course(learner.phases(), len(learner.lessons.train), {}, progress=False).run()
    return learner, records


def folder_of(kind, images, folder, epochs=2):
    """What ``learn`` did, two test images being measured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "_EPOCHS", epochs)
        patch.setattr(kind, "test_images", 2)
        return learn(images, kind.kind, out=folder, device="cpu", progress=False)


def weights(learner):
    """Every number that is kept."""
    return [value for part in learner.parts().values() for value in part.state_dict().values()]


def reads_nothing_missing(kind, images, masks, epochs=1):
    """Whether the weights are the same, bit for bit, whatever lies behind the masks."""
    found = [
        weights(trained(kind, torch.where(masks, images, garbage), masks, epochs)[0])
        for garbage in (0.0, 1.0)
    ]
    return all(torch.equal(*pair) for pair in zip(*found, strict=True))


def completes(learnt, seen, method):
    """Whether the prior loads by its folder's name, and completions hold what is seen."""
    assert catalogue.entry(str(learnt.folder)).name == str(learnt.folder)
    model = catalogue.build(learnt.folder, seen).model
    images = completed_images(infer(model, seen, method, draws=3, chains=1, progress=False))
    shown = seen.mask.numpy()
    varied = images[..., ~shown].std(axis=(0, 1)).max() > 0
    return varied and (images[..., shown] == seen.image[seen.mask].numpy()).all()
