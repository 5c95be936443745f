"""Every sentence has both languages: in every branch of the source, and in the results themselves."""

import ast
import copy
import json
import pickle
import re
from collections import Counter
from pathlib import Path

import pytest

import weightdecay
from weightdecay.text import Text, chinese_of, texts_of

SOURCE = Path(weightdecay.__file__).parent
CHINESE = re.compile("[一-鿿]")
# What only English has: an ending, and the words for one and for many.
ENGLISH_ONLY = {"plural", "lives", "them"}


def sentences():
    """Every `Text(en, zh)` of the source whose two languages are written there."""
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Text":
                english, chinese = node.args
                if isinstance(english, ast.JoinedStr | ast.Constant):
                    place = f"{file.relative_to(SOURCE)}:{node.lineno}"
                    yield pytest.param(english, chinese, id=place)


def words(node):
    """The written part of a string, and what is filled in, without `.zh`."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    written = " ".join(part.value for part in parts if isinstance(part, ast.Constant))
    filled = [ast.unparse(part).replace(".zh", "") for part in parts if isinstance(part, ast.FormattedValue)]
    filled = [re.sub(r"_zh\b", "", re.sub(r"\b(?:_in_)?chinese\((.*)\)", r"\1", name)) for name in filled]
    # A part that was made in both languages before, and a word that is looked up.
    filled = [re.sub(r"\b_CHINESE\[(.*)\]", r"\1", re.sub(r"\ben\b", "zh", name)) for name in filled]
    return written, Counter(name for name in filled if name.strip("f'{}\"") not in ENGLISH_ONLY)


def numbers(text):
    return Counter(re.findall(r"\d[\d.,]*\d|\d", text))


@pytest.mark.parametrize(("english", "chinese"), list(sentences()))
def test_a_sentence_says_the_same_in_both_languages(english, chinese):
    assert isinstance(chinese, ast.JoinedStr | ast.Constant), "write the Chinese beside the English"
    (said, names), (said_zh, names_zh) = words(english), words(chinese)
    assert names == names_zh
    assert numbers(said) == numbers(said_zh)
    if re.search("[a-z]{2}", re.sub("weight_decay|concise-matched", "", said)):
        assert CHINESE.search(said_zh), said


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_text_is_its_english_and_keeps_its_chinese(protocol):
    text = Text("3 rows", "3 行")
    assert text == "3 rows"
    assert hash(text) == hash("3 rows")
    assert json.dumps({text: [text]}) == '{"3 rows": ["3 rows"]}'
    for other in (pickle.loads(pickle.dumps(text, protocol)), copy.copy(text), copy.deepcopy(text)):
        assert isinstance(other, Text)
        assert (other, other.zh) == ("3 rows", "3 行")
    with pytest.raises(AttributeError, match="does not change"):
        text.zh = "4 行"


def test_sentences_in_a_file_that_has_english_alone_are_english():
    texts = texts_of(["3 rows"], None)
    assert chinese_of([*texts, "4 rows"]) == ["3 rows", "4 rows"]
    assert chinese_of(texts_of(["3 rows"], ["3 行"])) == ["3 行"]
