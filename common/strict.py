"""YAML and XML from anywhere, such as recipes and annotations of images: what stands for more than is written is refused."""

import re
from collections import Counter
from collections.abc import Hashable
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser, fromstring

import yaml

_LARGEST_TEXT = 1_000_000  # characters, for which YAML takes seconds
_MOST_BYTES = 1 << 20  # of XML


def parse_yaml(text: str) -> Any:
    """What a YAML text holds; ValueError, of one line, also for a key given twice, an alias, a tag, and what is too long or too deep.

    A few aliases can stand for billions of values, and a tag such as `!!set` makes what no option takes. `-` in keys becomes `_`: an
    option may be spelled either way.
    """
    if len(text) > _LARGEST_TEXT:
        raise ValueError(f"{len(text):,} characters, more than {_LARGEST_TEXT:,}")
    try:
        return yaml.load(text, _Loader)  # a safe one
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(None, None, "aliases are not allowed; write the value", mark)
        if event.tag is not None:
            raise yaml.MarkedYAMLError(None, None, f"tags such as {event.tag} are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        # To YAML 1.1, 010 is eight and 1:30 is ninety.
        if re.fullmatch(r"[-+]?0[0-9_]+|.*:.*", node.value):
            raise yaml.MarkedYAMLError(None, None, f"{node.value} is no decimal number; write it as one", node.start_mark)
        return super().construct_yaml_int(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        content = super().construct_mapping(node, deep)
        spelled = Counter(str(self.construct_object(key)).replace("-", "_") for key, _ in node.value)
        if twice := [name for name, count in spelled.items() if count > 1]:
            raise yaml.MarkedYAMLError(None, None, f"{twice[0]} is given twice; keep one", node.start_mark)
        return {str(name).replace("-", "_"): value for name, value in content.items()}


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def parse_xml(content: bytes, root_tag: str) -> Element:
    """The root of a small XML document, which has this tag; ValueError for any other one."""
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{len(content):,} bytes; {_MOST_BYTES:,} are the most that are read")
    try:
        root: Element = fromstring(content, XMLParser(target=_WithoutTypes()))
    except (ParseError, LookupError) as error:  # LookupError: of an encoding that nobody knows
        raise ValueError(f"not XML ({error})") from error
    if root.tag != root_tag:
        raise ValueError(f"an XML file of another kind, <{root.tag[:40]}> instead of <{root_tag}>")
    return root


class _WithoutTypes(TreeBuilder):
    def doctype(self, *_: object) -> None:
        """Refuse a document type, whose entities can expand without end."""
        raise ValueError("it declares a document type; refused")
