"""Parameters from many images: losses, and what minimises them."""
