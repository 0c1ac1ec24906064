"""Methods of inference: each a frozen dataclass of settings whose `run` turns a problem into draws."""
