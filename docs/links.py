"""Every link from one built page to another leads somewhere: checked without a network."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """Names and links of one page."""

    def __init__(self, text):
        super().__init__()
        self.names, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.names |= {found[name] for name in ("id", "name") if found.get(name)}
        link = found.get("src") if tag in ("img", "script") else found.get("href")
        if link and tag != "base":
            self.links.add(link)


def broken(folder):
    """Links that lead nowhere: (page, link), in order.

    Args:
        folder: of built pages. Links with a scheme (https:, data:) are not looked at.
    """
    folder = Path(folder)
    pages = {path.resolve(): _Page(path.read_text("utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            name = unquote(parts.fragment)
            there = target in pages and name in pages[target].names
            if not target.exists() or (name and "=" not in name and target in pages and not there):
                found.append((str(path.relative_to(folder.resolve())), link))
    return found
