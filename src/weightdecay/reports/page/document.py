"""One HTML file from a page's data: styles, scripts and numbers inside, nothing from outside."""

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

import numpy as np

from weightdecay import __version__

# By this line a page is known as one of ours, which may be written anew.
MARK = '<meta name="generator" content="weightdecay'
_STATIC = files("weightdecay.reports.page") / "static"


def document(title: str, data: dict[str, Any], kind: str) -> str:
    """The whole page.

    Args:
        title: plain text.
        data: what the script reads, as JSON has it.
        kind: of page: its markup and its script are in `static`.

    The Content-Security-Policy allows the styles and scripts in this file, by their checksums, and nothing
    else: no request, no frame, no form.
    """
    styles = "\n".join(_static(name) for name in ("uPlot.min.css", "page.css"))
    scripts = [_static(name) for name in ("uPlot.iife.min.js", "common.js", f"{kind}.js")]
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_checksum(styles)}'",
            f"script-src {' '.join(repr(_checksum(one)) for one in scripts)}",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    # "<" in a text could end the element; JSON has another way to write it.
    numbers = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return "\n".join(
        (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'{MARK} {__version__}">\n<title>{html.escape(title)}</title>',
            f"<style>{styles}</style>\n</head>\n<body>",
            _static(f"{kind}.html"),
            f'<script type="application/json" id="data">{numbers}</script>',
            *(f"<script>{one}</script>" for one in scripts),
            "</body>\n</html>\n",
        )
    )


def packed(values: Any, kind: str = "<f4") -> str:
    """Numbers as base64, in little endian: float32 unless said."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()


def _static(name: str) -> str:
    return (_STATIC / name).read_text(encoding="utf-8")


def _checksum(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
