"""Execute every notebook, and check that each .ipynb is the pair of its .py.

`python notebooks/execute.py` runs them in memory, as CI does; with `--write` the .ipynb files are written anew, outputs included.
"""

import argparse
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def main() -> None:
    """Execute the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the .ipynb files, outputs included")
    write = parser.parse_args().write
    for source in sorted(FOLDER.glob("[0-9]*.py")):
        began = time.monotonic()
        notebook = jupytext.read(source)
        pair = source.with_suffix(".ipynb")
        if not write:
            if not pair.exists():
                raise SystemExit(f"{pair} is missing: run `python notebooks/execute.py --write`.")
            ours, theirs = ([cell.source for cell in one.cells] for one in (notebook, jupytext.read(pair)))
            if ours != theirs:
                raise SystemExit(f"{pair} differs from {source}: run `python notebooks/execute.py --write`.")
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
        ).execute()
        if write:
            jupytext.write(notebook, pair)
        print(f"{source.name}: {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
