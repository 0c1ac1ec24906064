"""Linear operators: adjoints by dot products, matrices, variances, and the geometry of scikit-image's tomograph."""

import numpy as np
import pytest
import torch
from skimage.transform import radon

from posterior_inpainting.models import operators

OPERATORS = {
    "mask": lambda: operators.mask(torch.rand(2, 6, 5) > 0.5),
    "average": lambda: operators.average((3, 8, 12), 4),
    "luminance": lambda: operators.luminance((3, 5, 6)),
    "blur": lambda: operators.blur((2, 14, 15), 1.3),
    "matrix": lambda: operators.matrix(torch.randn(7, 12), (1, 3, 4)),
    "sparse matrix": lambda: operators.matrix(torch.eye(12)[:5].to_sparse(), (1, 3, 4)),
    "radon": lambda: operators.radon((1, 9, 9), [0.0, 30.0, 77.0]),
    "small and grey": lambda: operators.luminance((3, 4, 4)) @ operators.average((3, 8, 8), 2),
    "blurred and small": lambda: operators.average((1, 4, 4), 2) @ operators.blur((1, 10, 10), 1.0),
    "some of the grey": lambda: operators.mask(torch.rand(1, 4, 4) > 0.3) @ operators.luminance((3, 4, 4)),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    torch.manual_seed(0)
    return OPERATORS[request.param]().double()


@pytest.fixture
def images(operator):
    return torch.randn(3, 2, *operator.image_shape, generator=torch.Generator().manual_seed(1)).double()


def test_adjoint_by_dot_products(operator, images):
    values = torch.randn(3, 2, *operator.output_shape).double()
    left = (operator(images) * values).flatten(2).sum(-1)
    torch.testing.assert_close(left, (images * operator.adjoint(values)).flatten(2).sum(-1))


def test_is_its_matrix(operator, images):
    dense = operator.dense(images)
    torch.testing.assert_close(images.flatten(2) @ dense.T, operator(images).flatten(2), atol=1e-6, rtol=1e-6)
    if operator.rows_are_disjoint:
        assert int((dense != 0).sum(0).max()) == 1


def test_variances_and_diagonal(operator, images):
    squared = operator.dense(images).square()
    exact = operator.rows_are_disjoint or "_Product" not in type(operator).__name__
    found, expected = operator.variances(images.square()).flatten(2), images.square().flatten(2) @ squared.T
    diagonal = operator.diagonal(images).flatten()
    if exact:
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(diagonal, squared.sum(0), atol=1e-6, rtol=1e-5)
    else:  # paths of one pixel to one value have only positive products here
        assert bool((found <= expected + 1e-9).all())
        assert bool((diagonal <= squared.sum(0) + 1e-9).all())


@pytest.mark.parametrize("side", [9, 16])
def test_radon_is_that_of_scikit_image(side):
    image = np.random.default_rng(0).random((side, side))
    rows, columns = np.ogrid[:side, :side]
    image[(rows - side // 2) ** 2 + (columns - side // 2) ** 2 > (side // 2) ** 2] = 0
    angles = [0.0, 13.0, 45.0, 90.0, 123.0]
    ours = operators.radon((1, side, side), angles)(torch.tensor(image, dtype=torch.float32)[None])[0]
    np.testing.assert_allclose(ours.numpy(), radon(image, theta=angles, circle=True), atol=1e-5)


class Physics:
    """What deepinv's linear physics look like: images in, values out, and back."""

    def __init__(self, gain=2.0, offset=0.0, back=2.0):
        self.gain, self.offset, self.back = gain, offset, back

    def A(self, image):
        return self.gain * image[:, 0, ::2] + self.offset

    def A_adjoint(self, values):
        image = torch.zeros(len(values), 1, 4, 4)
        image[:, 0, ::2] = self.back * values
        return image


def test_physics_of_deepinv():
    operator = operators.from_deepinv(Physics(), (1, 4, 4))
    images, values = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 2, 4)
    assert operator.output_shape == (1, 2, 4)
    torch.testing.assert_close((operator(images) * values).sum(), (images * operator.adjoint(values)).sum())
    torch.testing.assert_close(operator.variances(images), 4 * images[:, :, ::2])


def test_a_real_physics_of_deepinv():
    physics = pytest.importorskip("deepinv").physics
    operator = operators.from_deepinv(physics.Downsampling(img_size=(1, 8, 8), factor=2), (1, 8, 8))
    assert operator.output_shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: operators.average((1, 8, 9), 2), r"factor=2 for 8 x 9 pixels"),
        (lambda: operators.average((1, 8, 8), 0), r"factor=0 for"),
        (lambda: operators.luminance((1, 8, 8)), r"expected 3 channels"),
        (lambda: operators.blur((1, 8, 8), 3.0), r"kernel of 19 x 19 pixels"),
        (lambda: operators.blur((1, 8, 8), -1.0), r"width=-1 for"),
        (lambda: operators.mask(torch.zeros(1, 2, 2) > 0), r"nothing is seen"),
        (lambda: operators.mask(torch.zeros(2, 2)), r"expected a boolean tensor \(channel, row, column\)"),
        (lambda: operators.matrix(torch.ones(2, 5), (1, 2, 2)), r"expected \(value, 4\)"),
        (lambda: operators.matrix(torch.full((1, 4), torch.nan), (1, 2, 2)), r"NaN or infinite"),
        (lambda: operators.matrix(torch.ones(2, 4), (1, 2, 2), (1, 3, 1)), r"for 2 rows of the matrix"),
        (lambda: operators.radon((3, 8, 8), [0.0]), r"expected \(1, side, side\)"),
        (lambda: operators.radon((1, 8, 8), []), r"angles is empty"),
        (lambda: operators.average((1, 8, 8), 2)(torch.zeros(1, 6, 8)), r"expected \(1, 8, 8\)"),
        (lambda: operators.average((1, 8, 8), 2).adjoint(torch.zeros(1, 3, 4)), r"expected \(1, 4, 4\) last"),
        (
            lambda: operators.luminance((3, 4, 4)) @ operators.mask(torch.ones(3, 4, 4) > 0),
            r"the one on the right comes first",
        ),
        (lambda: operators.blur((1, 256, 256), 1.0).dense(torch.zeros(1)), r"a matrix of .* entries"),
        (lambda: operators.from_deepinv(object(), (1, 4, 4)), r"object has no method A"),
        (lambda: operators.from_deepinv(Physics(offset=1.0), (1, 4, 4)), r"Physics is not linear"),
        (lambda: operators.from_deepinv(Physics(back=1.0), (1, 4, 4)), r"A_adjoint is not the adjoint"),
    ],
)
def test_bad_input_is_answered_in_a_line(made, message):
    with pytest.raises(ValueError, match=message) as error:
        made()
    assert "\n" not in str(error.value)
