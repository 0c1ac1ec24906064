"""Parameters from many images: losses, trainers, and the recipes of what is bundled."""
