"""The package as a stranger gets it: built, installed in a fresh environment with nothing but its dependencies, run."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,  # builds and installs, with the package index at hand
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("uv") is None, reason="needs uv"),
]


def _run(*command, **options):
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, capture_output=True, text=True, env=inherited, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    _run("uv", "build", "--out-dir", str(folder), str(ROOT))
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def test_the_wheel_holds_the_package_and_the_source_what_its_tests_read(built):
    wheel, source = built
    inside = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == {"jaxdyn"}
    assert {"jaxdyn/report.css", "jaxdyn/py.typed"} <= set(inside)
    with tarfile.open(source) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "README.md",
        "CONTRIBUTING.md",
        "docs/conf.py",
        "tests/conftest.py",
        "benchmarks/results/width-laptop.json",
    }
    assert needed - files == set()
    assert [name for name in files if "_build" in name or name.endswith((".pyc", ".zarr"))] == []


def test_it_runs_in_a_fresh_environment(built, tmp_path):
    """Without TensorFlow, as README says; importing takes little and loads no JAX; the main job ends in verdicts."""
    python = tmp_path / "env" / "bin" / "python"
    overrides = tmp_path / "overrides.txt"
    overrides.write_text("tensorflow ; python_version < '3'\ntf2jax ; python_version < '3'\n")
    _run("uv", "venv", "--python", sys.executable, str(tmp_path / "env"))
    _run("uv", "pip", "install", "--python", str(python), "--override", str(overrides), str(built[0]))
    program = (
        "import time; t = time.perf_counter(); import jaxdyn, sys; print(time.perf_counter() - t, 'jax' in sys.modules)"
    )
    _run(str(python), "-c", program, cwd=tmp_path)  # writes the bytecode
    seconds, has_jax = _run(str(python), "-c", program, cwd=tmp_path).split()
    assert (float(seconds) < 0.4, has_jax) == (True, "False")
    _run(str(python.with_name("jaxdyn")), "run", "width", "--preset", "ci", "--log", cwd=tmp_path)
    assert json.loads((tmp_path / "runs" / "width-ci.json").read_text())["verdicts"]
