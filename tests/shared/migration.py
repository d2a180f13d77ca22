"""The code of the pages in docs/coming_from: the calls of their tables, theirs and ours, and their blocks."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "coming_from"


class Page:
    """A page of calls, theirs on the left and ours on the right.

    Attributes
    ----------
    calls : list of tuple of str
        Theirs and ours, a pair for each row that has both.
    n_rows : int
        Of the tables of calls.
    their_blocks, our_blocks : list of str
        Blocks that import ``package``, and those that do not.
    """

    def __init__(self, name, package):
        self.name, self.package = name, package
        text = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
        tables = re.findall(r"^\| .* \| here \| what differs \|\n\| ---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
        rows = "".join(tables)
        self.calls = re.findall(r"^\| `([^`]*)` \| `([^`]*)` \| \S.* \|$", rows, re.MULTILINE)
        self.n_rows = rows.count("\n")
        blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        self.their_blocks = [block for block in blocks if package in imports(block)]
        self.our_blocks = [block for block in blocks if package not in imports(block)]

    def __repr__(self):
        return self.name


def imports(code):
    """The packages that code imports from, without what lies in them."""
    nodes = list(ast.walk(ast.parse(code)))
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in named + [node.module for node in nodes if isinstance(node, ast.ImportFrom)]}


PAGES = [
    Page("spotlight", "spotlight"),
    Page("surprise", "surprise"),
    Page("implicit", "implicit"),
    Page("lightfm", "lightfm"),
    Page("cmfrec", "cmfrec"),
    Page("myfm", "myfm"),
    Page("torch_loop", None),
]
SPOTLIGHT = PAGES[0]
