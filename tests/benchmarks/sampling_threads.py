"""One thread for torch, NumPy and JAX: to be imported before any of them, because each reads its setting only once."""

import os

__all__ = ["SETTINGS"]

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
os.environ.update(SETTINGS)
