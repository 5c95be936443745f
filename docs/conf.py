"""Sphinx configuration: every page is Markdown, every notebook is text and is executed on every build."""

import os
import re
import sys
import tempfile
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import ExtensionError

import weightdecay

sys.path.insert(0, str(Path(__file__).parent))
import findings
import languages
import links

project = "weightdecay"
version = release = weightdecay.__version__
copyright = "the weightdecay authors"

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_pages", "**/.ipynb_checkpoints"]
default_role = "py:obj"  # `name` in a docstring is code, as in Markdown, and a link where it can be

html_theme = "furo"
html_title = "weightdecay"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_pages"]  # reports that the pages have made while they were executed
(Path(__file__).parent / "_pages").mkdir(exist_ok=True)
html_show_search_summary = False  # the summaries would be fetched, which a page from a file may not
html_math_renderer = "mathml"  # drawn by the browser itself, so the pages work without a network
html_show_copyright = html_show_sphinx = html_copy_source = False

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
# A translation has the cells of its original, which ran just before: it takes over the output.
# Nothing is kept from one build to the next.
_outputs = tempfile.TemporaryDirectory()
nb_execution_mode = "cache"
nb_execution_cache_path = _outputs.name
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_ipywidgets_js = {}  # no page uses widgets

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads only wait for one another

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
napoleon_numpy_docstring = False
napoleon_use_rtype = False  # what stands before a colon in Returns is part of the sentence
napoleon_custom_sections = [("Class variables declare what the rule is and needs", "params_style")]


def shorten_defaults(_app, _what, _name, _obj, _options, signature, returns):
    """Show a default that is a long grid of numbers by its ends; leave private arguments out."""
    number = r"[\d.e+-]+"
    grid = re.compile(rf"\(({number}), (?:{number}, ){{3,}}({number})\)")
    if not signature:
        return None
    return re.sub(r", _\w+(?=[,)])", "", grid.sub(r"(\1, ..., \2)", signature)), returns


def docstring_to_rst(_app, what, _name, _obj, _options, lines):
    """Our docstrings are plain text: keep indented equations line by line, and ||w||² as it stands."""
    if what == "property" and lines:
        # napoleon reads what stands before the first colon of a property as its type: let that be nothing
        lines[0] = f": {lines[0]}"
    out = []
    literal = False
    for line in lines:
        after_gap = len(out) > 1 and not out[-1] and bool(out[-2])
        if line and not line.startswith(" "):
            literal = False
        elif line and after_gap and not out[-2].startswith(" "):
            literal = True
            out += ["::", ""]
        # ||w||² is no substitution, and alpha_ no reference
        plain = re.sub(r"(`[^`]*`)|(\||(?<=\w)_(?![\w:,]))", lambda m: m[1] or rf"\{m[2]}", line)
        out.append(line if literal else plain)
    lines[:] = out


def code_cells(page):
    """The code cells of a text notebook, options included."""
    return re.findall(r"^```\{code-cell\}.*?^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def translations_in_step(app):
    """A translated notebook has the same code cells as its original, one by one."""
    for translated in Path(app.srcdir).rglob("*.zh.md"):
        original = translated.with_name(translated.name.replace(".zh.", "."))
        ours, theirs = code_cells(translated), code_cells(original)
        for number, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
            if a != b:
                raise ExtensionError(f"{translated.name}: code cell {number} differs from {original.name}")
        if len(ours) != len(theirs):
            raise ExtensionError(f"{translated.name}: {len(ours)} code cells, {original.name} {len(theirs)}")


def public_names_listed(app):
    """Every public name has its entry on a page of the API."""
    pages = "\n".join(page.read_text("utf-8") for page in (Path(app.srcdir) / "api").glob("*.md"))
    listed = re.findall(r"^\.\. auto(?:function|class|exception):: (\w+)$", pages, re.MULTILINE)
    if missing := sorted(set(weightdecay.__all__) - set(listed)):
        raise ExtensionError(f"no page of docs/api lists {', '.join(missing)}")


def commands_listed(app):
    """Every command of the command line has its section on the page of commands."""
    from weightdecay.cli import app as command_line

    text = (Path(app.srcdir) / "commands.md").read_text("utf-8")
    names = [one.name or one.callback.__name__ for one in command_line.registered_commands]
    if missing := [name for name in names if f"## {name.replace('_', '-')}\n" not in text]:
        raise ExtensionError(f"commands.md does not list {', '.join(missing)}")


def links_lead_somewhere(app, exception):
    """After the build: no link from page to page is dead."""
    if exception is None and app.builder.name == "html" and (dead := links.broken(app.outdir)):
        raise ExtensionError("dead links: " + "; ".join(f"{link} in {page}" for page, link in dead))


def every_page(_app, env, _added, _changed, _removed):
    """Read every page at every build: a notebook is also out of date when the package has changed."""
    return env.found_docs


def math_renderer(as_block):
    """Write a formula as MathML with what docutils brings along."""

    def visit(self, node):
        try:
            self.body.append(tex2mathml(node.astext(), as_block))
        except MathError as error:
            raise ExtensionError(f"{node.source}: {error} in {node.astext()!r}") from error
        raise SkipNode

    return visit, None


def findings_listed(_app, docname, source):
    """Put the audit's list of findings into the index of their pages."""
    if docname in ("audit/index", "audit/index.zh"):
        source[0] = findings.listed(source[0], docname.removeprefix("audit/index"))


def setup(app):
    """Connect the above."""
    app.add_html_math_renderer("mathml", math_renderer(as_block=False), math_renderer(as_block=True))
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("autodoc-process-docstring", docstring_to_rst, priority=400)  # before napoleon
    app.connect("builder-inited", translations_in_step)
    app.connect("builder-inited", public_names_listed)
    app.connect("builder-inited", commands_listed)
    app.connect("source-read", findings_listed)
    app.connect("build-finished", links_lead_somewhere)
    app.connect("env-get-outdated", every_page)
    app.connect("html-page-context", languages.page_language, priority=900)  # after the theme
