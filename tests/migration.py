"""The code of docs/coming_from_spotlight.md: the calls of its tables, Spotlight's and ours, and its blocks."""

import re
from pathlib import Path

PAGE = (Path(__file__).parent.parent / "docs" / "coming_from_spotlight.md").read_text(encoding="utf-8")
CALLS = re.findall(r"^\| `([^`]*)` \| `([^`]*)` \| \S.* \|$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
N_ROWS = len(re.findall(r"^\| (?!Spotlight |---)", PAGE, re.MULTILINE))
