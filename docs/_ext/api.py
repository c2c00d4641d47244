"""The reference, from docstrings: the directive `api` documents a module, and names in backticks find what they name."""

import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from docstrings import to_myst, to_rst
from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

CALL = re.compile(r"(jd(?:\.[A-Za-z_]\w*)+)(?:\(.*\))?$", re.DOTALL)
KINDS = {"function", "class", "module", "data", "exception"}


class Api(SphinxDirective):
    """`{api} jaxdyn.models`: the module's docstring, a table of its public names, and the docstring of each."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Text for MyST, and `automodule` for the rest."""
        name = self.arguments[0]
        module = importlib.import_module(name)
        parent = importlib.import_module(name.rpartition(".")[0])
        told = set(getattr(parent, "__all__", ()))  # documented there already
        skipped = [one for one in told if hasattr(module, one) and getattr(module, one) is getattr(parent, one)]
        text = [to_myst(inspect.getdoc(module) or ""), ""]
        if getattr(module, "__all__", None):
            rows = list(_rows(module))
            text += ["| name | what it is |", "|---|---|", *rows, ""]
        text += ["```{eval-rst}", f".. automodule:: {name}", "   :members:"]
        text += [f"   :exclude-members: {', '.join(sorted(skipped))}"] if skipped else []
        return self.parse_text_to_nodes("\n".join([*text, "```"]))


def _rows(module: ModuleType) -> Iterator[str]:
    for one in module.__all__:
        value = getattr(module, one)
        if not isinstance(value, ModuleType) and (callable(value) or inspect.isclass(value)):
            first = (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|")
            yield f"| {{py:obj}}`{one} <{module.__name__}.{one}>` | {first} |"


class Public(SphinxDirective):
    """`{public} jaxdyn`: what stands at the top of the package, and where it is described."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A table."""
        module = importlib.import_module(self.arguments[0])
        rows = ["| name | what it is |", "|---|---|"]
        for one in module.__all__:
            value = getattr(module, one)
            first = (inspect.getdoc(value) or "").partition("\n")[0].replace("|", "\\|")
            link = f"[`jd.{one}`]({one}.md)" if isinstance(value, ModuleType) else f"{{py:obj}}`jd.{one}`"
            rows.append(f"| {link} | {first} |")
        return self.parse_text_to_nodes("\n".join(rows))


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = [] if what == "module" else to_rst(lines)  # of modules the directive has told


def _signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, given: str | None, returned: str | None
) -> Any:
    return tuple(None if one is None else one.replace("jaxlib._jax.Array", "Array") for one in (given, returned))


def _skip(app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple are told under its attributes."""
    return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None


def _resolve(app: Sphinx, env: Any, node: Any, contnode: nodes.Node) -> nodes.Node | None:
    """A name that Sphinx does not find: `jd.sweep` and `geometry.ntk` are short for one thing alone."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains["py"]
    target = node["reftarget"].removesuffix("()").removeprefix("jd.").removeprefix("jaxdyn.")
    is_telling = "." in node["reftarget"] or "_" in target or target[:1].isupper()
    if not is_telling:
        return None
    last = target.rpartition(".")[2]
    ends = [f"jaxdyn.{target}", f".{target}", *([f".{last}"] if "_" in last or last[:1].isupper() else [])]
    for end in ends:
        found = {
            full: entry
            for full, entry in domain.objects.items()
            if full.endswith(end) and (entry.objtype in KINDS or "." in target) and not entry.aliased
        }
        exact = {full: entry for full, entry in found.items() if full == end}
        if len(exact or found) == 1:
            ((full, entry),) = (exact or found).items()
            return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, contnode, full)
    return None


def _link(app: Sphinx, doctree: nodes.document) -> None:
    """`jd.geometry.ntk(…)` in the text of a page is a link to what it names."""
    for literal in list(doctree.findall(nodes.literal)):
        named = CALL.match(literal.astext())
        if named and not isinstance(literal.parent, (nodes.reference, nodes.title, pending_xref)):
            options = {
                "refdomain": "py",
                "reftype": "obj",
                "reftarget": named[1],
                "refexplicit": True,
                "refwarn": False,
            }
            literal.replace_self(pending_xref("", literal.deepcopy(), refdoc=app.env.docname, **options))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("api", Api)
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", _docstring, priority=400)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _skip)
    app.connect("doctree-read", _link)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
