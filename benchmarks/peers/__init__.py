"""Peers that need an environment of their own: made once, under `benchmarks/.peers`, asked over a pipe.

A worker is a script in this folder. It reads one request a line (JSON) from standard input and answers each with one
line (JSON), so that the rivals of two processes can be timed in turn.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ENVIRONMENTS = {
    "nt": ["jax==0.4.25", "jaxlib==0.4.25", "numpy<2", "scipy<1.13", "frozendict"],
    "torch": [
        "torch==2.13.0",
        "PyHessian==0.1",
        "hessian-eigenthings==1.0.0a5",
        "curvlinops-for-pytorch==3.0.1",
        "scipy",
    ],
}
WITHOUT_DEPENDENCIES = {"nt": ["neural-tangents==0.6.5"]}


class Unavailable(RuntimeError):
    """A peer cannot be had on this machine; the message says why."""


class Peer:
    """A worker of one environment.

    Args:
        environment: a name in `ENVIRONMENTS`, or "own" for this project's own interpreter with one CPU device.
        script: file name of the worker.
        platforms: JAX_PLATFORMS of the worker; as it is here when None.

    Raises:
        Unavailable: when the environment cannot be made, or the worker does not start.
    """

    def __init__(self, environment: str, script: str, platforms: str | None = "cpu") -> None:
        python = sys.executable if environment == "own" else _python(environment)
        threads = {"OMP_NUM_THREADS": str(os.cpu_count())}
        if platforms is not None:
            threads["JAX_PLATFORMS"] = platforms
        inherited = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [str(python), str(HERE / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**inherited, **threads},
        )
        self.versions = self.ask()

    def ask(self, **request: Any) -> Any:
        """One request, its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        self._log.seek(0)
        raise Unavailable(f"the worker ended: {self._log.read()[-600:]}")

    def close(self) -> None:
        """End the worker."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def _python(name: str) -> Path:
    """The interpreter of an environment, made when it is not there (Python 3.11)."""
    place = HERE.parent / ".peers" / name
    python = place / "bin" / "python"
    if python.exists():
        return python
    if not os.environ.get("JAXDYN_INSTALL_PEERS"):
        raise Unavailable(
            "not installed; `--install-peers` does (neural-tangents 0.4 GB, PyTorch and its tools 1.2 GB)"
        )
    if sys.version_info[:2] != (3, 11):
        raise Unavailable("the peers' environments are made with Python 3.11; run this benchmark with it")
    try:
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(python), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name])
        if name in WITHOUT_DEPENDENCIES:
            _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *WITHOUT_DEPENDENCIES[name])
    except subprocess.CalledProcessError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise Unavailable(f"could not install {' '.join(ENVIRONMENTS[name])}: {error.stderr[-300:]}") from error
    return python


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
