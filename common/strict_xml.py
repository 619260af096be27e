"""Small XML documents from anywhere, such as annotations of images: without document types, whose entities can expand without end."""

from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_MOST_BYTES, _DEEPEST = 1 << 20, 20


def parse_xml(content: bytes, root_tag: str) -> Element:
    """The root of a document, which has this tag; ValueError for any other one, and for what could fill the memory."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def refuse_types(*_: Any) -> None:
        raise ValueError("it declares a document type; refused")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise ValueError("nested too deeply; refused")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler, parser.CharacterDataHandler = refuse_types, builder.data
    parser.StartElementHandler, parser.EndElementHandler = start, end
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes; {_MOST_BYTES:,} are the most that are read")
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:  # LookupError: of an encoding that nobody knows
        raise ValueError(f"not XML ({error})") from error
    root = builder.close()
    if root.tag != root_tag:
        raise ValueError(f"an XML file of another kind, <{root.tag[:40]}> instead of <{root_tag}>")
    return root
