"""The table of primitives in the docstring of the kernel says what the code knows."""

import importlib
import inspect
import pkgutil
import re
import textwrap

from jaxdyn.geometry import kernel


def _tables():
    """Every public dictionary that a module of the kernel defines, by module and name."""
    for found in pkgutil.iter_modules(kernel.__path__):
        module = importlib.import_module(f"{kernel.__name__}.{found.name}")
        for name in re.findall(r"^([A-Z]+)\b.* = \{", inspect.getsource(module), re.MULTILINE):
            yield f"{found.name}.{name}", sorted(getattr(module, name))


def test_the_table_of_primitives_is_that_of_the_rules():
    text = inspect.getdoc(kernel)
    rows = dict(re.findall(r"^`(\w+\.[A-Z]+)`: .*\n((?:    .+(?:\n|$))+)", text, re.MULTILINE))
    wrap = {"width": 120, "initial_indent": "    ", "subsequent_indent": "    ", "break_on_hyphens": False}
    for table, primitives in _tables():
        row = textwrap.fill(", ".join(primitives), **wrap)
        found = re.split(r",\s+", rows.pop(table, "").strip())
        assert found == primitives, f"In the docstring of {kernel.__name__}, `{table}` needs the lines\n{row}"
    assert rows == {}, "tables without a dictionary"


def test_the_tables_are_found():
    assert {"axes.ALONG", "inlining.INLINED", "linear.LINEAR", "uses.PRODUCTS"} <= dict(_tables()).keys()
