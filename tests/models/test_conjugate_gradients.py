"""Conjugate gradients: as many iterations as there are unknowns, whatever conditions them."""

import pytest
import torch

from posterior_inpainting.models.fields.conjugate_gradients import conjugate_gradients


@pytest.fixture
def systems():
    """Two systems of six unknowns, of condition 100, and their right-hand sides as images."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(2, 6, 6, generator=generator).double()).Q
    matrices = basis @ torch.logspace(0, 2, 6).double().diag() @ basis.mT
    return matrices, torch.randn(2, 1, 2, 3, generator=generator).double()


def times(matrices):
    return lambda images: (matrices @ images.flatten(1).unsqueeze(-1)).reshape(images.shape)


@pytest.mark.parametrize("by", ["identity", "diagonal"])
def test_as_many_iterations_as_unknowns(systems, by):
    matrices, right = systems
    diagonal = torch.diagonal(matrices, dim1=1, dim2=2).reshape(right.shape)
    conditioned = {"identity": lambda images: images, "diagonal": lambda images: images / diagonal}[by]
    found = conjugate_gradients(times(matrices), conditioned, right, 1e-8, 7)
    expected = torch.linalg.solve(matrices, right.flatten(1)).reshape(right.shape)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_a_residual_that_is_enough(systems):
    matrices, right = systems
    matrices = matrices + 30 * torch.eye(6).double()  # of condition 4: every iteration brings it nearer
    found = conjugate_gradients(times(matrices), lambda images: images, right, 1e-12, 9, enough=0.1)
    left = (right - times(matrices)(found)).flatten(1).norm(dim=1)
    assert 1e-6 < float(left.max()) < 0.1  # and no further


def test_giving_up_is_said(systems):
    matrices, right = systems
    with pytest.raises(RuntimeError, match="stopped after 3 iterations"):
        conjugate_gradients(times(matrices), lambda images: images, right, 1e-8, 3)
