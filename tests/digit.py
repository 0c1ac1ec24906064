"""What most tests look at: images of 8 x 8 pixels, their lower half hidden."""

from posterior_inpainting.models import observations

SHAPE = (1, 8, 8)
HALF = observations.half(SHAPE, hide="bottom")
