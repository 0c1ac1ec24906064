"""Log densities of latents given seen pixels, written by hand where samplers need them fast."""
