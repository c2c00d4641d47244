"""The house rules that an eye can miss: length of files, private modules, import circles, an experiment's modules, claims without JAX."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from jaxdyn import experiments

TOP = Path(__file__).parents[1]
ROOT = TOP / "jaxdyn"
FILES = {
    ".".join(("jaxdyn", *file.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): file
    for file in ROOT.rglob("*.py")
}


def _imported(name, *, everywhere):
    """Modules and names that a module imports, as dotted names; without `everywhere` those at import time alone."""
    body = ast.parse(FILES[name].read_text(encoding="utf-8"))
    nodes = list(ast.walk(body)) if everywhere else body.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_no_file_is_longer_than_it_may_be():
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in FILES.items()}
    assert {
        name: n for name, n in lengths.items() if n > (250 if name.startswith("jaxdyn.experiments.") else 400)
    } == {}


def test_private_modules_are_imported_within_their_package_alone():
    """`jaxdyn.a._b` is for `jaxdyn.a`; `jaxdyn._tree` and its like are for all."""
    strangers = []
    for name in FILES:
        for target in _imported(name, everywhere=True):
            parts = target.split(".")
            private = next(
                (i for i, part in enumerate(parts) if i and part.startswith("_") and not part.startswith("__")), None
            )
            if parts[0] == "jaxdyn" and private and not name.startswith(".".join(parts[:private])):
                strangers.append((name, target))
    assert strangers == []


def test_no_modules_import_each_other_in_a_circle():
    """Of imports at import time, in `ensemble` of all; a package stands for its `__init__`, which its modules may re-export from."""
    edges = {}
    for name in FILES:
        targets = {
            next((t for t in (target, target.rpartition(".")[0]) if t in FILES), None)
            for target in _imported(name, everywhere=name.startswith("jaxdyn.ensemble."))
        }
        edges[name] = {
            t for t in targets if t and not (FILES[t].name == "__init__.py" and name.startswith(f"{t}."))
        } - {name}
    state = {}

    def visit(name, path):
        state[name] = "open"
        for target in sorted(edges[name]):
            if state.get(target) == "open":
                pytest.fail(
                    f"An import circle: {' -> '.join([*path[path.index(target) :], target] if target in path else [*path, target])}"
                )
            if target not in state:
                visit(target, [*path, target])
        state[name] = "done"

    for name in FILES:
        if name not in state:
            visit(name, [name])


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_has_its_modules_and_its_claims_load_no_jax(name):
    folder = ROOT / "experiments" / name
    assert {"__init__", "claims", "sweep", "measure", "figure"} <= {file.stem for file in folder.glob("*.py")}
    assert ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert len(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")).body) == 1
    program = f"import sys, jaxdyn.experiments.{name}.claims as c; assert c.CLAIMS; print(sorted(set(sys.modules) & {{'jax', 'xarray'}}))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("file", sorted((TOP / ".github" / "workflows").iterdir()), ids=lambda file: file.name)
def test_workflows_run_what_is_there(file):
    read = yaml.safe_load(file.read_text(encoding="utf-8"))
    steps = [step for job in read["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands
    for command in commands:
        first = command.split()[0]
        assert first in ("pip", "uv") or os.access(TOP / first, os.X_OK), command
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@[\w/.-]+", step["uses"]) for step in steps if "uses" in step)


def test_workflows_test_the_versions_of_python_that_the_site_names():
    matrix = yaml.safe_load((TOP / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["ci"]["strategy"]["matrix"]
    installing = (TOP / "docs" / "guides" / "installing.md").read_text(encoding="utf-8")
    assert matrix["python"] == re.findall(r"^\| (3\.\d+) \|", installing, re.MULTILINE)
