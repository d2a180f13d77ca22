"""Check that every internal link of built pages leads somewhere, to its anchor too: ``python check_links.py FOLDER``."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}
        self.links += [(self.getpos()[0], values[name]) for name in ("href", "src") if values.get(name)]


def dead_links(folder):
    """What leads nowhere, as lines of text, and how many links were looked at."""
    pages = {path.resolve(): Page(path) for path in folder.rglob("*.html") if "_static" not in path.parts}
    dead, n_links = [], 0
    for path, page in pages.items():
        for line, link in page.links:
            address = urlsplit(link)
            if address.scheme in ("http", "https", "data"):
                continue
            n_links += 1
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            anchor = unquote(address.fragment)
            missing = not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors)
            if address.scheme or missing:
                dead.append(f"{path.relative_to(folder.resolve())}:{line}: {link}")
    return dead, n_links


if __name__ == "__main__":
    dead, n_links = dead_links(Path(sys.argv[1]))
    print(*dead, f"{n_links} internal links, {len(dead)} of them dead", sep="\n")
    sys.exit(bool(dead or not n_links))
