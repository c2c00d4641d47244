"""HTML that cannot forget to escape: elements whose children are text or elements, and docstrings as paragraphs.

Text becomes HTML in one place, `element`, which escapes it; only `Html` passes through as it is.
"""

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Html:
    """Markup that is escaped already.

    Attributes:
        text: the markup.
    """

    text: str


_EMPTY = {"img", "meta", "wbr", "br", "col"}


def element(name: str, *children: "str | Html", **attributes: str) -> Html:
    """An element.

    Args:
        name: the tag.
        children: text, which is escaped, or markup.
        attributes: a trailing underscore is dropped, others become hyphens: `class_`, `aria_label`.

    Example:
        >>> element("p", "1 < 2 ", element("b", "is true"), class_="note").text
        '<p class="note">1 &lt; 2 <b>is true</b></p>'
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items())
    if name in _EMPTY:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children).text}</{name}>")


def join(*children: "str | Html") -> Html:
    """Text and markup behind each other."""
    return Html("".join(one.text if isinstance(one, Html) else html.escape(one) for one in children))


def table(head: "list[str | Html]", rows: "list[list[str | Html]]", **attributes: str) -> Html:
    """A table; every cell knows its heading, for screens too narrow for columns."""
    labels = [re.sub(r"<[^>]*>", "", join(one).text) for one in head]
    body = [
        element("tr", *(element("td", cell, data_label=html.unescape(label)) for cell, label in zip(row, labels, strict=True)))
        for row in rows
    ]  # fmt: skip
    top = element("thead", element("tr", *(element("th", one, scope="col") for one in head)))
    return element("table", top, element("tbody", *body), **attributes)


def prose(text: str) -> Html:
    r"""A docstring's blocks as paragraphs, lists, tables and displayed formulas (indented blocks).

    Example:
        >>> prose("With `x` < 1:\n\n* one\n* two").text
        '<p>With <code>x</code> &lt; 1:</p><ul><li>one</li><li>two</li></ul>'
    """
    blocks = re.split(r"\n[ \t]*\n", text.strip("\n"))
    return join(*(_block(block) for block in blocks if block.strip()))


def _block(block: str) -> Html:
    stripped = block.strip()
    if stripped.startswith("|"):
        (head, *rows), *_ = tables(block)
        return table([_inline(one) for one in head], [[_inline(one) for one in row] for row in rows], class_="plain")
    if stripped.startswith(("* ", "- ")):
        items = re.split(r"(?m)^\s*[*-] ", block)[1:]
        return element("ul", *(element("li", _inline(item)) for item in items))
    if stripped.startswith("References:"):
        return element("p", element("b", "References. "), _inline(stripped.removeprefix("References:")))
    if all(line.startswith("    ") for line in block.splitlines() if line.strip()):
        return element("pre", "\n".join(line.strip() for line in block.splitlines()))
    return element("p", _inline(block))


def _inline(text: str) -> Html:
    parts = re.split(r"(`+)(.+?)\1", " ".join(text.split()))
    return join(*(element("code", parts[i + 1]) if i % 3 == 1 else parts[i] for i in range(len(parts)) if i % 3 != 2))


def tables(text: str) -> list[list[list[str]]]:
    """The Markdown tables of a text as rows of cells, headings first, rows of dashes left out; short rows are filled up."""
    found: list[list[list[str]]] = []
    is_inside = False
    for line in text.splitlines():
        is_row = line.lstrip().startswith("|")
        if is_row and not is_inside:
            found.append([])
        is_inside = is_row
        if is_row and set(line) - set("|-: "):
            found[-1].append(_cells(line, len(found[-1][0]) if found[-1] else None))
    return found


def _cells(line: str, num: int | None) -> list[str]:
    inner = re.sub(r"\s*\|$", " ", line.strip())[1:]
    cells = [cell.strip() for cell in re.split(r"(?:(?<=\s)|^)\|(?=\s)", inner)]
    return cells if num is None else (cells + [""] * num)[:num]
