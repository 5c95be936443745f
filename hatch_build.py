"""Build hook: the README as a package index shows it, where a link into the repository leads nowhere.

With `Repository` under `[project.urls]`, links and pictures become absolute. Without it, links become their
text and pictures are left out.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r'<img src="(?!https?:)([^"]+)"([^>]*)>')
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)\s]+)\)")


def absolute(text: str, repository: str | None) -> str:
    """The README with absolute links.

    Args:
        text: Markdown.
        repository: the address of the repository, or None.
    """
    if repository is None:
        text = _LINK.sub(r"\1", _PICTURE.sub("", text))
    else:
        base = repository.rstrip("/")
        text = _PICTURE.sub(rf'<img src="{base}/raw/HEAD/\1"\2>', text)
        text = _LINK.sub(rf"[\1]({base}/blob/HEAD/\2)", text)
    return re.sub(r"\n{3,}", "\n\n", text)


class CustomMetadataHook(MetadataHookInterface):
    """Fills in `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Hatchling calls this with the project's table of pyproject.toml."""
        text = Path(self.root, "README.md").read_text("utf-8")
        repository = metadata.get("urls", {}).get("Repository")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, repository)}
