"""README's code blocks run as they stand, in order, and its commands are those the sessions have."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_code_block_runs(block, capsys):
    names = {}
    exec(compile(block, str(README), "exec"), names)
    assert "model" in names


def test_there_is_a_block_for_each_input_form():
    assert len(BLOCKS) >= 3


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
