"""The README and the site: their code runs, what they print is what they say, and their verdicts are those of the committed JSON."""

import contextlib
import doctest
import io
import re
import sys
import warnings
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))

PAGES = [
    ROOT / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
]
FENCE = re.compile(r"^( *)```(?P<kind>python|text|\{code-block\} python)\n(?P<body>.*?)^\1```$", re.DOTALL | re.MULTILINE)
SIZES = {"[64, 128, 256, 512]": "[16, 32]", "steps=500": "steps=20", "n=256": "n=24"}
"""What the README's sweep says, and the sizes at which it is tested."""


def blocks(page):
    """The fences of a page: kind, body and line."""
    text = page.read_text(encoding="utf-8")
    return [(one["kind"], one["body"], text[: one.start()].count("\n") + 2) for one in FENCE.finditer(text)]


def with_code(*kinds):
    return [
        pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES if any(b[0] in kinds for b in blocks(page))
    ]


@pytest.mark.parametrize("page", with_code("python"))
def test_the_code_of_a_page_runs_and_prints_what_stands_below_it(page, tmp_path, monkeypatch):
    """One namespace a page, in an empty folder. A `text` fence behind a block is what it prints."""
    monkeypatch.chdir(tmp_path)
    namespace, printed, before = {"__name__": "page"}, None, None
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("default")  # what a user sees is no error
        for kind, body, line in blocks(page):
            if kind == "python":
                for said, tested in SIZES.items() if page.name == "README.md" else ():
                    body = body.replace(said, tested)
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile("\n" * (line - 1) + body, str(page), "exec"), namespace)
                printed = out.getvalue()
            elif kind == "text" and before == "python":
                flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
                assert doctest.OutputChecker().check_output(body, printed, flags), f"{page}:{line}: printed {printed!r}"
            before = kind


@pytest.mark.parametrize("page", with_code("{code-block} python"))
def test_the_calls_of_others_are_at_least_python(page):
    for kind, body, _ in blocks(page):
        if kind.startswith("{"):
            compile(body, str(page), "exec")
