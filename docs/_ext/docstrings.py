"""jaxdyn's docstrings are plain text with Markdown's backticks and tables, in Google's sections: what Sphinx must be told of them."""

import re

SECTION = re.compile(r"(Args|Attributes|Example|Examples|Note|Raises|References|Returns|Yields):$")
NAME = re.compile(r"(?:jd\.)?[A-Za-z_]\w*(?:\.\w+)*(?:\(\))?$")
QUOTED = re.compile(r"(`[^`]+`)")


def to_rst(lines: list[str]) -> list[str]:
    r"""A docstring as reStructuredText for napoleon: names become links, formulas literal blocks, tables tables.

    Example:
        >>> to_rst(["The `Task` of n*k numbers.", "", "    y = f(x)"])
        ['The :py:obj:`Task` of n\\*k numbers.', '', '.. code-block:: text', '', '    y = f(x)']
    """
    found: list[str] = []
    section, literal, i = False, False, 0
    while i < len(lines):
        line = lines[i]
        is_indented = line.startswith("    ")
        if line and not is_indented:
            section, literal = bool(SECTION.match(line)), False
        if line.lstrip().startswith(">>>"):  # a doctest goes on to the next empty line
            while i < len(lines) and lines[i].strip():
                found.append(lines[i])
                i += 1
            continue
        if line.lstrip().startswith("|"):
            rows = []
            while i < len(lines) and lines[i].lstrip().startswith("|"):
                rows.append(lines[i].strip())
                i += 1
            found += _list_table(rows, line[: len(line) - len(line.lstrip())])
            continue
        if is_indented and not section:
            if not literal and found and not found[-1]:
                found += [".. code-block:: text", ""]
                literal = True
            found.append(line if literal else _inline(line))
        elif section and is_indented and line[4:].startswith("    ") and not lines[i - 1]:
            block = _block(lines[i:])  # a formula within a section
            indent = " " * 4
            found += [f"{indent}.. code-block:: text", "", *block, ""]
            i += len(block)
            continue
        else:
            found.append(_inline(line))
        i += 1
    return found


def _block(lines: list[str]) -> list[str]:
    end = next((i for i, one in enumerate(lines) if one and not one.startswith(" " * 8)), len(lines))
    return lines[:end]


def _inline(line: str) -> str:
    """Backticks to links or literals; signs that mean something to reStructuredText escaped."""
    parts = []
    for part in QUOTED.split(line):
        if part.startswith("`") and part.endswith("`") and len(part) > 2:
            inner = part[1:-1]
            parts.append(f":py:obj:`{inner}`" if NAME.match(inner) else f"``{inner}``")
        else:
            bullet = "* " if not parts and part.startswith("* ") else ""
            escaped = bullet + re.sub(r"([*|\\])", r"\\\1", part.removeprefix(bullet))
            parts.append(re.sub(r"(\w)_(?=\W|$)", r"\1\\_", escaped))
    for i in range(1, len(parts), 2):  # inline markup must end before a space or a mark
        if i + 1 < len(parts) and re.match(r"[\w\\]", parts[i + 1][:1] or " "):
            parts[i] += "\\ "
        if parts[i - 1] and re.search(r"[\w]$", parts[i - 1]):
            parts[i] = "\\ " + parts[i]
    return "".join(parts)


def _list_table(rows: list[str], indent: str) -> list[str]:
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if not re.fullmatch(r"[|\-: ]+", row)]
    out = ["", f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
    for row in cells:
        out += [f"{indent}   {'* -' if i == 0 else '  -'} {_inline(cell)}" for i, cell in enumerate(row)]
    return [*out, ""]


def to_myst(text: str) -> str:
    """A module's docstring as MyST: names become links, doctests fences, `References` a paragraph.

    Example:
        >>> to_myst("Of `jd.sweep`.")
        'Of {py:obj}`jd.sweep`.'
    """
    found: list[str] = []
    is_doctest, references = False, False
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if line.startswith(">>>") and not is_doctest:
            found.append("```pycon")
            is_doctest = True
        elif is_doctest and (not line or (line.startswith("    ") and not lines[i - 1])):
            found.append("```")
            is_doctest = False
        if line == "References:":
            found += ["**References**", ""]
            references = True
            continue
        if references and line and not line.startswith(" "):
            references = False
        if is_doctest or (line.startswith("    ") and not references):
            found.append(line)
        else:
            found.append(_links(line.strip() if references else line))
    return "\n".join([*found, "```"] if is_doctest else found)


def _links(line: str) -> str:
    return QUOTED.sub(lambda m: f"{{py:obj}}{m[0]}" if NAME.match(m[0][1:-1]) else m[0], line)
