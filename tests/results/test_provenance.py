"""Where numbers come from: told of an installed package and of a checkout alike."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import jax

import jaxdyn

ROOT = Path(jaxdyn.__file__).parents[1]

UNINSTALLED = """
import importlib.metadata as metadata
known = metadata.version

def version(name):
    if name == "jaxdyn":
        raise metadata.PackageNotFoundError(name)
    return known(name)

metadata.version = version
import jaxdyn
from jaxdyn.results import provenance
print(jaxdyn.__version__, provenance()["versions"]["jaxdyn"], provenance()["versions"]["jax"])
"""


def test_a_checkout_that_is_not_installed_knows_its_version():
    done = subprocess.run(
        [sys.executable, "-c", UNINSTALLED],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [jaxdyn.__version__, jaxdyn.__version__, jax.__version__]


def test_the_version_is_written_once():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in told["project"]["dynamic"]
    assert told["tool"]["hatch"]["version"]["path"] == "jaxdyn/_version.py"
