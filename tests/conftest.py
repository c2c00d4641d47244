"""The severe settings every test runs under: float64 at hand, no silent rank promotion, warnings are errors."""

import os
import tempfile

os.environ.setdefault("NPROC", "8")  # two virtual CPU devices on two cores can hang XLA otherwise
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAXDYN_CACHE", tempfile.mkdtemp(prefix="jaxdyn-tests-"))  # nothing measured before decides here

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
