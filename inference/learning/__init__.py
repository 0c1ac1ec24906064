"""Learning a prior from a person's own images: what is learnt, until when, and what it is worth."""
