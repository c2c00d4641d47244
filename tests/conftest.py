"""The severe settings every test runs under: float64 at hand, no silent rank promotion, warnings are errors."""

import atexit
import os
import shutil
import signal
import tempfile

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("NPROC", "8")  # two virtual CPU devices on two cores can hang XLA otherwise
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("MPLBACKEND", "agg")
if "JAXDYN_CACHE" not in os.environ:  # nothing measured before decides here; workers inherit the folder
    os.environ["JAXDYN_CACHE"] = tempfile.mkdtemp(prefix="jaxdyn-tests-")
    atexit.register(shutil.rmtree, os.environ["JAXDYN_CACHE"], ignore_errors=True)
# what one test compiled, another need not; a folder a worker, so that none reads what another is writing
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(
    os.environ["JAXDYN_CACHE"], f"xla-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import chex
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(autouse=True)
def _fresh_trace_counter():
    """`chex.assert_max_traces` counts by name across tests; every test starts at zero."""
    chex.clear_trace_counter()
