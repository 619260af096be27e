"""YAML that says each thing once, and no more than is written."""

import re
from collections import Counter
from collections.abc import Hashable
from typing import Any

import yaml

_LARGEST_TEXT = 1_000_000  # characters, for which YAML takes seconds


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
