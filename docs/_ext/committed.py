"""What is committed in `benchmarks/results`: the machine a benchmark ran on, read from its JSON when the site is built."""

import shutil
from pathlib import Path
from typing import Any

from docutils import nodes
from results import RESULTS, ROOT, benchmarks, machine
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class Measured(SphinxDirective):
    """`{measured} ensemble`: where the figures of a benchmark were measured, with the JSON to download."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A line for each file."""
        name = self.arguments[0]
        found = benchmarks(name)
        if not found:
            raise self.error(f"There is no result of the benchmark {name!r} in {RESULTS}.")
        lines = []
        for file, environment in found:
            self.env.note_dependency(str(file))
            lines.append(
                f"- **{machine(environment)}** ({{download}}`{file.name} </../benchmarks/results/{file.name}>`)"
            )
        return self.parse_text_to_nodes("\n".join(["Committed results:", "", *lines]))


def _copy_notebooks(app: Sphinx) -> None:
    """The notebooks with the outputs that are committed, as pages; `docs/notebooks` is ignored by git."""
    folder = Path(app.srcdir) / "notebooks"
    folder.mkdir(exist_ok=True)
    for file in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
        target = folder / file.name
        if not target.exists() or target.read_bytes() != file.read_bytes():
            shutil.copyfile(file, target)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("measured", Measured)
    app.connect("builder-inited", _copy_notebooks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
