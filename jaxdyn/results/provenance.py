"""Where a number comes from: versions, devices, precision and the commit of the code that computed it."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

from jaxdyn._version import __version__


def versions() -> dict[str, str]:
    """Versions of jaxdyn, JAX and the libraries that set results, and the platform they ran on."""
    packages = ("jax", "jaxlib", "optax", "flax")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"jaxdyn": __version__, **found, "python": platform.python_version(), "platform": jax.default_backend()}


def provenance() -> dict[str, Any]:
    """Attributes that every dataset carries.

    Returns:
        Versions, device kind and count, whether float64 is on, and the git commit of a checkout (None elsewhere), with
        "+changes" where the work tree differs from it.
    """
    devices = jax.devices()
    return {
        "versions": versions(),
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "float64": bool(jax.config.values["jax_enable_x64"]),
        "git_commit": _commit() or "none",
    }


def _commit() -> str | None:
    """The commit of the checkout that holds jaxdyn, if it lives in one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}+changes" if git("status", "--porcelain", "--untracked-files=no") else commit
