"""Results as Markdown: what the JSON holds, without lists and dictionaries."""

from collections.abc import Mapping, Sequence
from typing import Any


def markdown(found: Mapping[str, Any]) -> str:
    """The results of the driver as one page: environment, an overview, a table for each section."""
    where = ", ".join(f"{name} {value}" for name, value in found["environment"].items())
    sections = found["sections"]
    overview = [{name: one[name] for name in ("section", "status", "seconds", "cpu", "cap")} for one in sections]
    parts = ["# Trial on an accelerator", where or "environment not known", "\n".join(rows(overview))]
    for one in sections:
        parts.append(f"## {one['section']}: {one['status']}")
        if one["rows"]:
            parts.append("\n".join(rows(one["rows"])))
        if one["error"]:
            parts.append(f"```\n{one['error'].strip()}\n```")
    return "\n\n".join(parts) + "\n"


def rows(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a table; its columns are the names of plain values, in the order in which they first occur."""
    plain = [{name: value for name, value in row.items() if not isinstance(value, (dict, list))} for row in table]
    columns = list(dict.fromkeys(name for row in plain for name in row))
    lines = [columns, ["---"] * len(columns), *([cell(row.get(name)) for name in columns] for row in plain)]
    return [f"| {' | '.join(line)} |" for line in lines]


def cell(value: Any) -> str:
    """One value in a table, numbers with four digits."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")
