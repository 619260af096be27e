"""YAML in which nothing is said twice, and XML; in neither stands anything for more than is written."""

import pytest

from common.strict import parse_xml, parse_yaml

BOMB = "<!DOCTYPE a [<!ENTITY x 'xx'><!ENTITY y '&x;&x;'>]><a>&y;</a>"


def test_the_yaml_that_is_written_is_read() -> None:
    text = "a-b: {c: [1, 2.5, x, 0, -7], d: ~}\ne: 'a: b'\n"
    assert parse_yaml(text) == {"a_b": {"c": [1, 2.5, "x", 0, -7], "d": None}, "e": "a: b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "a is given twice; keep one"),
        ("a: [{b: {c: 1, c: 2}}]", "c is given twice"),
        ("a-b: 1\na_b: 2", "a_b is given twice"),
        ("a: 1\n'a': 2", "a is given twice"),
        ("<<: {a: 1}\na: 2", "a is given twice"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        ("&x [*x]", "aliases are not allowed"),
        ("[" * 99_999, "nested too deeply"),
        ("{a: " * 99_999, "nested too deeply"),
        ("#" * 1_000_001, "1,000,001 characters, more than 1,000,000"),
        ("\0", "unacceptable character"),
        ("a: 2001-99-99", "month must be"),
        ("a: 010", "010 is no decimal number; write it as one"),
        ("a: 1:30", "1:30 is no decimal number"),
        ("? {a: 1}\n: 2", "unhashable key"),
        ("~: 1\nnull: 2", "None is given twice"),
        ("1: a\n'1': b", "1 is given twice"),
        ("true: 1\nyes: 2", "True is given twice"),
        *((f"a: !!{tag} x", f"{tag} are not allowed") for tag in ("bool", "timestamp", "set", "python/name:os.system")),
    ],
)
def test_other_yaml_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)


def test_an_xml_document_is_read() -> None:
    root = parse_xml(b"<?xml version='1.0'?>\n<a><b>1 &amp; 2</b><b/></a>", "a")
    assert [found.text for found in root.findall("b")] == ["1 & 2", None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "declares a document type"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "declares a document type"),
        ("<a>" + "x" * (1 << 20) + "</a>", "bytes; 1,048,576 are the most"),
        ("<a><b></a>", "not XML"),
        ("", "not XML"),
        ("<?xml version='1.0' encoding='foo'?><a/>", "not XML .*unknown encoding: foo"),
        ("<html></html>", "of another kind, <html> instead of <a>"),
    ],
)
def test_other_xml_is_refused_in_one_line(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_xml(content.encode(), "a")
    assert "\n" not in str(caught.value)
