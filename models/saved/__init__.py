"""Priors of one's own in folders: how they are described, written, read, and made models of."""
