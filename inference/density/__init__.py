"""The posterior density as samplers may ask for it: positions in, log densities and gradients out."""
