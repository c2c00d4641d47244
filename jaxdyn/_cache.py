"""The folder of what can be computed or fetched again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where jaxdyn keeps what it may lose: JAXDYN_CACHE, or `jaxdyn` in XDG_CACHE_HOME, or in `~/.cache`."""
    return Path(
        os.environ.get("JAXDYN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdyn"
    )
