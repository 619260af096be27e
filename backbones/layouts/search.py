"""Where in somebody's checkpoint complete networks lie, under which wrappers, and which of them is meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from backbones.layouts.base import Layout, Network, entry_at, is_state_dict
from backbones.layouts.keys import NUMBERS, LayoutError, Weights, abbreviate, own_keys, under

if TYPE_CHECKING:
    from torch import Tensor

# What DistributedDataParallel, torch.compile, FSDP and activation checkpointing put into names, anywhere in them.
_TORCH_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.(?=.)")
_NOT_NETWORKS = re.compile("optim|scheduler|scaler|rng|hyper_param|config|args", re.IGNORECASE)  # keys of a training's state

_DEEPEST = 8  # keys in keys; published checkpoints have up to four

_TEACHERS, _STUDENTS, _AVERAGES = {"teacher"}, {"student"}, {"ema", "swa", "average", "averaged"}
_MOMENTUM = {"momentum", "target", "k", "key"}
# The words, between underscores, of the names that training loops give to what holds a network. What has another name may hold a
# network for another purpose, such as that of a loss, and is not taken unasked.
_WORDS = (
    "online query q base main pretrained shadow module model models network net nets backbone encoder trunk body bottom up feature "
    "features feat extractor embedding wrapped wrapper image visual vision tower context self vit vits mae transformer resnet swin "
    "dino dinov timm hf with registers state dict params parameters weights checkpoint ckpt generator learner arch classy app"
)
_WRAPPER_WORDS = _TEACHERS | _STUDENTS | _AVERAGES | _MOMENTUM | set(_WORDS.split())


def in_plain_names(checkpoint: Any) -> Any:
    """A checkpoint with tensors for NumPy arrays, and without torch's own wrappers in their names."""
    return _rebuilt(checkpoint, lambda name: _TORCH_WRAPPERS.sub("", name), {})


def with_renamed(checkpoint: Any, old: str, new: str) -> Any:
    """A checkpoint with `new` for `old` in the names of all tensors; LayoutError if no name has it."""
    names = [name for _, weights in state_dicts(checkpoint) for name in weights]
    if not any(old in name for name in names):
        raise LayoutError(f"--map {old}={new}: no name contains {old!r}; there are {abbreviate(names)}")
    return _rebuilt(checkpoint, lambda name: name.replace(old, new), {})


def _rebuilt(node: Any, rename: Callable[[str], str], done: dict[int, Any]) -> Any:
    """A copy around the same tensors; `done` holds the copies by identity, since a part may be referred to again and again."""
    if not isinstance(node, Mapping):
        return node
    if id(node) in done:
        return done[id(node)]
    weights = _as_state_dict(node)
    if weights is None:
        done[id(node)] = {key: _rebuilt(value, rename, done) for key, value in node.items()}
        return done[id(node)]
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        target = rename(name)
        if target in renamed:
            raise LayoutError(f"two tensors would both be called {abbreviate([target])}; take the names of one with --prefix")
        renamed[target] = tensor
    done[id(node)] = renamed
    return renamed


def _as_state_dict(node: Mapping[Any, Any]) -> Weights | None:
    """The node as tensors by name where it is that, or NumPy arrays by name; else None."""
    import numpy as np
    import torch

    if is_state_dict(node):
        return node
    if not any(isinstance(value, np.ndarray) for value in node.values()):
        return None

    def as_tensor(value: Any) -> Any:
        is_number = isinstance(value, (np.ndarray, np.generic)) and f"torch.{value.dtype.name}" in NUMBERS
        return torch.from_numpy(np.array(value)) if is_number else value

    converted = {name: as_tensor(value) for name, value in node.items()}
    return converted if is_state_dict(converted) else None


def groups(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Every mapping in a nested checkpoint with the path of its keys, but what belongs to optimisers."""
    if not isinstance(node, Mapping):
        return
    yield path, node
    if not is_state_dict(node) and path.count("/") < _DEEPEST:
        for key, value in node.items():
            if isinstance(key, str) and key and not _NOT_NETWORKS.search(key):
                yield from groups(value, f"{path}/{key}" if path else key)


def state_dicts(checkpoint: Any) -> Iterator[tuple[str, Weights]]:
    """Those of the groups that are state dicts, where their path leads to them: a key may contain a slash."""
    for path, node in groups(checkpoint):
        if is_state_dict(node) and entry_at(checkpoint, path) is node:
            yield path, node


def find_networks(checkpoint: Any, namings: Collection[Layout]) -> list[Network]:
    """The networks whose names bear the marks of a way of naming, wherever they lie; not yet compared name by name."""
    anchors = tuple({max(group, key=len) for naming in namings for group in naming.marks})
    found = []
    for path, weights in state_dicts(checkpoint):
        for prefix in _prefixes_of(weights, anchors):
            names = under(weights, prefix).keys()
            fitting = [
                naming for naming in namings if naming.bears_marks(names) and (not naming.also or naming.also(checkpoint))
            ]
            found += [Network(naming, path, prefix, weights) for naming in most_special(fitting)]
    return found


def _prefixes_of(names: Iterable[str], anchors: tuple[str, ...]) -> list[str]:
    """What stands before the anchors, ends of names: nothing, or whole parts of a name."""
    ends = ((name, anchor) for name in names if name.endswith(anchors) for anchor in anchors if name.endswith(anchor))
    prefixes = dict.fromkeys(name.removesuffix(anchor) for name, anchor in ends)
    return [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]


def most_special(layouts: Iterable[Layout]) -> list[Layout]:
    """Those layouts that no other one of them specialises."""
    fitting = list(layouts)
    general = {name for layout in fitting for name in layout.specialises}
    return [layout for layout in fitting if layout.name not in general]


def choose(checkpoint: Any, networks: list[Network], branch: str | None) -> tuple[Network, str, str]:
    """The network that is meant, its branch, and why: the one asked for, or the only one, or what the rules of `_rank` prefer.

    LayoutError, with the options that answer the question, if they do not decide.
    """
    labels = _labels(networks)
    if branch is not None:
        wanted = [network for label, network in labels.items() if branch in (label, network.place)]
        if not wanted:
            raise LayoutError(f"the {networks[0].naming.name} layout has no branch {branch!r}; it has {', '.join(labels)}")
        return wanted[0], branch, ""
    words_of = {label: {word.rstrip("0123456789") for word in _words(network.place)} for label, network in labels.items()}
    known = {label: network for label, network in labels.items() if words_of[label] <= _WRAPPER_WORDS | {""}}
    if not known:
        places = ", ".join(network.place for network in networks)
        raise LayoutError(f"a network lies under {places}, a name that is not usual for one", map(_options, networks))
    has_online = any("online" in _words(network.place) for network in known.values())
    ranks = {label: _rank(network.place, has_online) for label, network in known.items()}
    best = [label for label in known if ranks[label] == min(ranks.values())]
    distinct: list[str] = []
    for label in best:
        if not any(_same(known[label].weights, known[other].weights) for other in distinct):
            distinct.append(label)
    doubt = _doubt(checkpoint, known, ranks[best[0]])
    # A teacher or an average under an unusual name is not taken unasked, nor is anything else in its place.
    distinct += [label for label in labels if label not in known and _words(labels[label].place) & (_TEACHERS | _AVERAGES)]
    if len(distinct) > 1 or doubt:
        holds = f"several networks: {', '.join(labels)}" if len(labels) > 1 else f"one network: {best[0]}"
        raise LayoutError(f"{holds}{doubt}; say which with --branch", [("--branch", label) for label in distinct])
    others = [label for label in known if label not in best]
    reason = f"preferred to {', '.join(others)}, which --branch takes" if others else ""
    return known[best[0]], best[0], reason


def _same(one: Weights, other: Weights) -> bool:
    """Whether two networks are the same one under two names: a module that a training loop holds twice."""
    return one.keys() == other.keys() and all(tensor.equal(other[name]) for name, tensor in one.items())


def _labels(networks: list[Network]) -> dict[str, Network]:
    """A short name for each network: what of its place the others do not share."""
    if len(networks) == 1:
        return {networks[0].naming.branches[0]: networks[0]}
    parts = [[part for part in re.split(r"[/.]", network.place) if part] for network in networks]
    shared = set.intersection(*map(set, parts))
    short = [".".join(part for part in own if part not in shared) or networks[0].naming.branches[0] for own in parts]
    names = [label if short.count(label) == 1 else network.place for label, network in zip(short, networks, strict=True)]
    return dict(zip(names, networks, strict=True))


def _options(network: Network) -> tuple[str, ...]:
    """The options that take a network wherever it lies."""
    key = ("--key", network.path.replace("/", ".")) if network.path else ()
    return (*key, "--prefix", network.prefix) if network.prefix else key


def _words(place: str) -> set[str]:
    return set(re.split(r"[/._]+", place.lower())) - {""}


def _rank(place: str, has_online: bool) -> int:
    """How far a place is from the network that authors evaluate.

    The teacher of self-distillation is evaluated, and of averaged weights those that timm prefers; of momentum contrast the network
    that is trained. A target encoder is BYOL's momentum network, or I-JEPA's evaluated one, which a checkpoint does not say.
    """
    words = _words(place)
    if "target_encoder" in place and not has_online:
        return 1
    if words & _MOMENTUM:
        return 3
    if words & _STUDENTS:
        return 2
    return 0 if words & (_TEACHERS | _AVERAGES) else 1


def _doubt(checkpoint: Any, known: Mapping[str, Network], rank: int) -> str:
    """Why the best of the complete networks may not be the meant one: a better one may be incomplete."""
    if rank == 3:
        return ", which is usually not the evaluated one"
    wanted = (_TEACHERS if rank == 2 else _TEACHERS | _AVERAGES) if rank else set()
    places = [network.place for network in known.values()]
    for path, _ in groups(checkpoint):
        if _words(path) & wanted and not any(place.startswith(path) for place in places):
            return f", but no complete one in {path}"
    return ""


def beside(
    checkpoint: Any, taken: Network, networks: Collection[Network], allowed: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """What lies outside of the taken network, by the rule that drops it; `allowed` are the layout's own rules for it.

    LayoutError if that looks like a part of the taken network, or the greater part of another one that is incomplete.
    """
    inside = taken.weights.keys()
    tokens = {name for name, target in (taken.naming.keys or own_keys(inside)).items() if target and "." not in name}
    whole = [(network.path, network.prefix) for network in networks]
    has_better = any(_words(network.place) & (_TEACHERS | _AVERAGES) for network in networks)
    parts: Counter[str] = Counter()
    dropped: dict[str, list[str]] = {}
    for path, weights in state_dicts(checkpoint):
        for name in weights:
            if path == taken.path and name.startswith(taken.prefix):
                continue
            rule = _rule(name, taken.prefix) if path == taken.path else f"{path}/*"
            dropped.setdefault(rule, []).append(name if path == taken.path else f"{path}/{name}")
            if rule in allowed or any(path == other and name.startswith(prefix) for other, prefix in whole):
                continue
            ends = [match.end() for match in re.finditer(r"\.|^", name)]
            if path == taken.path and any(name[end:] in tokens - inside for end in ends):
                raise LayoutError(f"{abbreviate([name])} lies beside the network under {taken.prefix!r}, which has none")
            parts.update({f"{path}/{name[:end]}" for end in ends if name[end:] in inside})
            if _words(rule) & (_TEACHERS | _AVERAGES) and not has_better:  # whose own names may be others, such as without dots
                parts[rule] += 1
    if cut := [place for place, count in parts.items() if 2 * count > len(inside)]:
        raise LayoutError(f"beside the network under {taken.place!r} lies an incomplete one: {cut[0]}", [_options(taken)])
    return {rule: tuple(names) for rule, names in dropped.items()}


def _rule(name: str, prefix: str) -> str:
    """The part of a name from which on it differs from the prefix, such as `head.*`."""
    parts, own = name.split("."), prefix.split(".")
    shared = next(index for index, part in enumerate(own) if parts[index : index + 1] != [part])
    return ".".join(parts[: shared + 1]) + (".*" if shared + 1 < len(parts) else "")


def select(checkpoint: Any, key: str = "", prefix: str = "") -> tuple[Any, tuple[str, ...]]:
    """The entry at a path of keys, and of its tensors those whose names begin with the prefix, without it; and the other names."""
    entry = next(_at_dotted(checkpoint, key), None) if key else checkpoint
    if key and entry is None:
        keys = [str(name) for name in checkpoint] if isinstance(checkpoint, Mapping) else []
        raise LayoutError(f"--key {key}: no such entry; the top-level keys are {abbreviate(keys, 8) or 'none'}")
    if not prefix:
        return entry, ()
    found = {path: weights for path, weights in state_dicts(entry) if any(name.startswith(prefix) for name in weights)}
    if len(found) != 1:
        names = [name for _, weights in state_dicts(entry) for name in weights]
        hints = [("--key", f"{key}.{path}".strip(".").replace("/", "."), "--prefix", prefix) for path in found]
        fault = f"names of {len(found)} entries begin so" if found else f"no name begins so; there are {abbreviate(names)}"
        raise LayoutError(f"--prefix {prefix}: {fault}", hints)
    (weights,) = found.values()
    return under(weights, prefix), tuple(name for name in weights if not name.startswith(prefix))


def _at_dotted(node: Any, key: str) -> Iterator[Any]:
    """The entries at a path of keys joined by dots, which the keys themselves may contain."""
    if not key:
        yield node
    for name, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(name, str) and name and f"{key}.".startswith(f"{name}."):
            yield from _at_dotted(value, key[len(name) + 1 :])
