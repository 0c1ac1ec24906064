"""`python -m posterior_inpainting.inference.cli`."""

from posterior_inpainting.inference.cli import main

if __name__ == "__main__":
    main()
