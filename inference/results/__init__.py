"""What becomes of draws: ArviZ groups, stores on disk, fingerprints of what made them."""
