"""The link check of the documentation finds what is dead, and nothing else."""

import runpy
from pathlib import Path

broken = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "links.py"))["broken"]


def test_dead_links_are_found(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1> <a href="#top">1</a> <a href="sub/b.html#here">2</a> <img src="no.png">'
        '<a href="https://example.org/nowhere">3</a> <a href="sub/b.html#gone">4</a> <a href="c.html">5</a>'
    )
    (tmp_path / "sub" / "b.html").write_text(
        '<p id="here">B</p> <a href="../a.html">1</a> <a href="../a.html#lang=zh">2</a>'
        '<a href="#\u8870">3</a>'
    )
    assert broken(tmp_path) == [
        ("a.html", "c.html"),
        ("a.html", "no.png"),
        ("a.html", "sub/b.html#gone"),
        ("sub/b.html", "#\u8870"),
    ]
