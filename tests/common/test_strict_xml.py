"""XML from anywhere: what could fill the memory or is another document is refused in one line."""

import pytest

from common.strict_xml import parse_xml

BOMB = "<!DOCTYPE a [<!ENTITY x 'xx'><!ENTITY y '&x;&x;'>]><a>&y;</a>"


def test_a_document_is_read() -> None:
    root = parse_xml(b"<?xml version='1.0'?>\n<a><b>1 &amp; 2</b><b/></a>", "a")
    assert [found.text for found in root.findall("b")] == ["1 & 2", None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "declares a document type"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "declares a document type"),
        ("<a>" * 30 + "</a>" * 30, "nested too deeply"),
        ("<a>" + "x" * (1 << 20) + "</a>", "bytes; 1,048,576 are the most"),
        ("<a><b></a>", "not XML"),
        ("", "not XML"),
        ("<?xml version='1.0' encoding='foo'?><a/>", "not XML .*unknown encoding: foo"),
        ("<html></html>", "of another kind, <html> instead of <a>"),
    ],
)
def test_others_are_refused(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_xml(content.encode(), "a")
    assert "\n" not in str(caught.value)
