"""Two trees of pages, English and Chinese: each page gets the navigation of its own language and a switch."""

from furo.navigation import get_navigation_tree
from sphinx import addnodes
from sphinx.environment.adapters.toctree import TocTree

HOME = {"en": "index", "zh": "index.zh"}
# What the theme itself writes on a page.
CHINESE = {
    "Back to top": "回到顶部",
    "Contents": "目录",
    "Home": "首页",
    "Next": "下一页",
    "On this page": "本页内容",
    "Previous": "上一页",
    "Search": "搜索",
    "Skip to content": "跳到正文",
}


def language_of(pagename):
    """The language of a page, by its name."""
    return "zh" if pagename.endswith(".zh") else "en"


def twin_of(pagename, env):
    """The page in the other language, or that language's home page."""
    other = pagename.removesuffix(".zh") if pagename.endswith(".zh") else f"{pagename}.zh"
    return other if other in env.found_docs else HOME[language_of(other)]


def _order(env, docname):
    """The pages of a tree in the order of its navigation."""
    yield docname
    for child in env.toctree_includes.get(docname, ()):
        yield from _order(env, child)


def _navigation(app, pagename):
    """The tree of Chinese pages, as the theme draws it."""
    adapter = TocTree(app.env)
    options = {"prune": True, "titles_only": True, "collapse": False, "includehidden": True}
    toctrees = app.env.get_doctree(HOME["zh"]).findall(addnodes.toctree)
    found = [adapter.resolve(pagename, app.builder, toctree, **options) for toctree in toctrees]
    whole, *others = [one for one in found if one is not None]
    for one in others:
        whole.extend(one.children)
    return get_navigation_tree(app.builder.render_partial(whole)["fragment"])


def _switch(app, pagename):
    """`English | 中文`, the one that is not shown as a link."""
    chinese = language_of(pagename) == "zh"
    there = app.builder.get_relative_uri(pagename, twin_of(pagename, app.env))
    names = [("English", "en"), ("中文", "zh-Hans")]
    shown = [
        f'<span aria-current="true" lang="{tag}">{name}</span>'
        if (tag != "en") == chinese
        else f'<a href="{there}" hreflang="{tag}" lang="{tag}">{name}</a>'
        for name, tag in names
    ]
    label = "语言" if chinese else "Language"
    return f'<nav class="language-switch" aria-label="{label}">{" | ".join(shown)}</nav>'


def page_language(app, pagename, _template, context, _doctree):
    """Give a page its language, and what belongs to it."""
    chinese = language_of(pagename) == "zh"
    context["language"] = "zh-Hans" if chinese else "en"  # browsers choose Chinese glyphs by it
    if pagename not in app.env.found_docs:
        return
    context["body"] = _switch(app, pagename) + context["body"]
    if not chinese:
        return
    context["master_doc"] = HOME["zh"]
    context["furo_navigation_tree"] = _navigation(app, pagename)
    context["_"] = context["gettext"] = lambda text: CHINESE.get(text.strip(), text)
    order = [name for name in _order(app.env, HOME["zh"]) if language_of(name) == "zh"]
    here = order.index(pagename)
    for key, index in (("prev", here - 1), ("next", here + 1)):
        context[key] = None
        if 0 <= index < len(order):
            link = app.builder.get_relative_uri(pagename, order[index])
            title = app.builder.render_partial(app.env.titles[order[index]])["title"]
            context[key] = {"link": link, "title": title}
