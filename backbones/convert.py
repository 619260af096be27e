"""Any published checkpoint to a backbone file: find the layout, take the branch, prove that nothing is left over.

A pretrained model of timm by its name (`timm:vit_small_patch16_224.dino`) becomes one of our networks if that gives timm's own
features, which is proved for each on a random image; any other stays timm's own network.
"""

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from backbones.build import build_backbone
from backbones.checkpoint import load_checkpoint
from backbones.file import TIMM_PREFIX, check_fills, is_backbone_file, is_timm_name, read_backbone_file, write_backbone_file
from backbones.foreign import timm_spec, weights_sha256
from backbones.layouts import LAYOUTS, Conversion, Layout, LayoutError, abbreviate, convert
from backbones.layouts.architecture import refuse_num_heads
from backbones.layouts.base import Source, entry_at
from backbones.layouts.keys import UnknownNetworkError, apply_table, own_keys
from backbones.layouts.search import find_networks, in_plain_names, select, with_renamed
from backbones.proof import own_heads, proved
from backbones.spec import BackboneSpec, TimmSpec, is_function_name
from common.files import file_sha256, one_line

_LONGEST_MESSAGE = 800
_MOST_HINTS = 4
_WITHOUT_EFFECT = {"Identity", "Dropout", "DropPath"}  # modules that leave features as they are, or follow them
_AVERAGED_BY_TIMM = ("state_dict_ema", "model_ema")  # which timm prefers when it loads a checkpoint


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is meant of a checkpoint that does not say it itself; each is an option of the commands."""

    layout: str | None = None  # None: what its keys show. `timm:NAME`: the weights of that model of timm.
    branch: str | None = None  # None: the layout's default.
    num_heads: int | None = None  # None: what the layout or the width says.
    key: str = ""  # The entry: keys of nested dictionaries, joined by dots.
    prefix: str = ""  # What stands before the names of the meant tensors; all others are dropped.
    renaming: tuple[str, ...] = ()  # Each `old=new` replaces a part of names, in this order.


UNCHOSEN = Selection()


def selection_of(options: Any) -> Selection:
    """What the options of a command say, in which `auto` and `default` mean that nothing was chosen."""
    return Selection(
        layout=None if options.format == "auto" else options.format,
        branch=None if options.branch == "default" else options.branch,
        num_heads=options.num_heads,
        key=options.key,
        prefix=options.prefix,
        renaming=options.map,
    )


def open_backbone(path: Path, chosen: Selection = UNCHOSEN) -> Conversion:
    """The backbone of whatever people have: a checkpoint of any known layout, `timm:NAME`, a backbone file, or `module:function`.

    ValueError, in one line that names the file, if there is no backbone, or an option is given where there is no choice; with the
    command that takes one if there is such a command.
    """
    try:
        if is_timm_name(path):
            is_other = chosen.layout not in (None, "timm") or chosen.branch not in (None, *LAYOUTS["timm"].branches)
            if is_other or chosen.key or chosen.prefix or chosen.renaming:
                raise LayoutError("a model of timm has no other layout, branch or entry; leave the options for these out")
            return convert_timm_model(path, chosen.num_heads)
        # A backbone file must not be taken for a bare state dict: its spec states the heads, which its weights do not show.
        if not is_backbone_file(path) and not is_function_name(path):
            return convert_content(load_checkpoint(path), chosen)
        if chosen != UNCHOSEN:
            kind = "what a function returns" if is_function_name(path) else "a backbone file already"
            raise LayoutError(f"is {kind}, which states its layout, branch and heads; leave these options out")
        content = read_backbone_file(path)
    except ValueError as error:
        message = one_line(str(error).removeprefix(f"{path}: "), _LONGEST_MESSAGE)  # names in a checkpoint may contain anything
        hints = error.hints if isinstance(error, LayoutError) else []
        commands = [shlex.join(["python", "tools/convert_checkpoint.py", str(path), *hint]) for hint in hints[:_MOST_HINTS]]
        usable = [command for command in commands if command.isprintable()]
        if not usable and isinstance(error, LayoutError) and chosen.layout is None and path.is_file():
            message += "; name the network if it is one of timm's (--format timm:NAME), else see docs/your_backbone.md"
        raise LayoutError(f"{path}: {message}{'; try: ' if usable else ''}{' or: '.join(usable)}") from error
    return Conversion(source=content.source, spec=content.spec, state_dict=content.state_dict)


def convert_content(checkpoint: Any, chosen: Selection = UNCHOSEN) -> Conversion:
    """Take the backbone of a loaded checkpoint: complete, finite, and of exactly the spec's names and shapes, else ValueError."""
    meant, others = select(checkpoint, chosen.key, chosen.prefix)
    for pair in chosen.renaming:
        old, equals, new = pair.partition("=")
        if not old or not equals:
            raise LayoutError(f"--map {pair}: give a part of the names and what replaces it, as OLD=NEW")
        meant = with_renamed(meant, old, new)
    meant = in_plain_names(meant)
    layout, branch, num_heads = chosen.layout, chosen.branch, chosen.num_heads
    try:
        if layout is not None and layout.startswith(TIMM_PREFIX):
            if branch is not None or num_heads is not None:
                raise LayoutError(f"--format {layout} states the network; leave out --branch and --num-heads")
            conversion = _convert_as_timms(meant, layout.removeprefix(TIMM_PREFIX))
        else:
            conversion = convert(meant, layout, branch, num_heads)
    except LayoutError as error:
        nothing_chosen = layout is None and branch is None and num_heads is None
        stated = _stated_models(checkpoint) if nothing_chosen else []
        if not stated or (not isinstance(error, UnknownNetworkError) and _has_our_names(stated[0])):
            given = (("--key", chosen.key), ("--prefix", chosen.prefix), *(("--map", pair) for pair in chosen.renaming))
            options = [part for option, value in given if value for part in (option, value)]
            if not options:
                raise
            raise LayoutError(str(error), [[*options, *hint] for hint in error.hints if hint[0] == "--branch"]) from error
        conversion = _convert_as_timms(meant, stated[0])
    check_fills(conversion.spec, conversion.state_dict)
    _check_architecture(checkpoint, conversion.spec)
    dropped = {f"not under --prefix {chosen.prefix}": others} if others else {}
    return dataclasses.replace(conversion, dropped={**conversion.dropped, **dropped})


def _check_architecture(checkpoint: Any, spec: BackboneSpec) -> None:
    """Refuse the weights of a network of timm's that has our names and computes something else, where the checkpoint says so."""
    if isinstance(spec, TimmSpec):
        return
    for name in _stated_models(checkpoint):
        with torch.device("meta"):
            theirs, ours = timm.create_model(name, pretrained=False, num_classes=0), build_backbone(spec)
        kinds = {part: type(module).__name__ for part, module in theirs.named_modules()}
        for part, module in ours.named_modules():
            own = type(module).__name__
            kind = kinds.get(part, own) if part else own
            if kind != own and not {kind, own} & _WITHOUT_EFFECT:
                what = f"timm's {name}, whose {part} is a {kind} and not a {own} as in our {spec.family}"
                raise LayoutError(f"the checkpoint says that it holds {what}: the same names, other features")


def _stated_models(checkpoint: Any) -> list[str]:
    """The models of timm that a checkpoint says it holds."""
    stated = [entry_at(checkpoint, path) for path in ("arch", "config/architecture")]
    return [name for name in stated if isinstance(name, str) and timm.is_model(name)]


def _has_our_names(name: str) -> bool:
    """Whether each name in a model of timm is one of our network's, which then takes its weights or says what is wrong with them."""
    with torch.device("meta"):
        weights = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    layout = next((LAYOUTS[own] for own in ("timm", "timm_dinov3") if LAYOUTS[own].bears_marks(weights.keys())), None)
    if layout is None:
        return False
    try:
        apply_table(weights, {**dict.fromkeys(layout.drops), **(layout.keys or own_keys(weights.keys()))})
    except LayoutError:
        return False
    return True


def _convert_as_timms(checkpoint: Any, name: str) -> Conversion:
    """The only network of a checkpoint that has all weights of a model of timm, under any prefix; of two, the averaged one."""
    with torch.device("meta"):
        own = build_backbone(timm_spec(name)).state_dict().keys()
    found = find_networks(checkpoint, [Layout(name=name, marks=(own,))])
    averaged = [network for network in found if network.path in _AVERAGED_BY_TIMM]
    networks = averaged if len(averaged) == 1 else found
    if not networks:
        raise LayoutError(f"the checkpoint does not hold all weights of timm's {name}")
    if len(networks) > 1:
        where = ", ".join(f"{network.path or 'the top'} (prefix {network.prefix or 'none'})" for network in networks)
        raise LayoutError(f"several networks have the weights of timm's {name}: {where}; choose one with --key and --prefix")
    return convert_timm_weights(name, networks[0].weights)


def convert_timm_model(
    source: Path, num_heads: int | None = None, create: Callable[..., nn.Module] = timm.create_model
) -> Conversion:
    """Fetch a pretrained model `timm:NAME` through timm's factory `create`, take its backbone, and prove it by its features.

    LayoutError if timm has no such model or no weights for it, they cannot be fetched, or `num_heads` is not the model's own.
    """
    name = os.fspath(source).removeprefix(TIMM_PREFIX)
    if not timm.is_model(name) or not timm.is_model_pretrained(name):
        similar = timm.list_pretrained(f"{name.split('.')[0]}*") if name else []
        raise LayoutError(f"timm has no pretrained model {name!r}; of a similar name: {abbreviate(similar) or 'none'}")
    try:
        model: Any = create(name, pretrained=True).eval()
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise LayoutError(f"timm cannot fetch the weights of {name} ({reason}); check the network") from error
    heads, weights = own_heads(model), model.state_dict()
    if heads is None:
        refuse_num_heads(num_heads)
    elif num_heads not in (None, heads):
        raise LayoutError(f"--num-heads {num_heads} contradicts the model, which has {heads}")
    try:
        return proved(model, convert_content(weights, Selection(num_heads=heads)))
    except ValueError:
        return proved(model, convert_timm_weights(name, weights))


def convert_timm_weights(name: str, weights: Mapping[str, Tensor]) -> Conversion:
    """The weights of a model of timm as timm's own network without its classifier.

    ValueError unless they are all there, and nothing beside them but the classifier.
    """
    spec = timm_spec(name)
    with torch.device("meta"):
        network: Any = build_backbone(spec)
    own, classifiers = network.state_dict(), network.pretrained_cfg.get("classifier") or ()
    if isinstance(classifiers, str):
        classifiers = (classifiers,)
    prefixes = tuple(f"{part.partition('.')[0]}." for part in classifiers)
    taken = {key: value for key, value in weights.items() if key in own or not key.startswith(prefixes)}
    dropped = {"timm's classifier": tuple(sorted(set(weights) - set(taken)))} if len(taken) < len(weights) else {}
    check_fills(spec, taken)
    source = Source(format="timm", branch=LAYOUTS["timm"].branches[0])
    return Conversion(source=source, spec=spec, state_dict=taken, dropped=dropped)


def write_conversion(conversion: Conversion, checkpoint: Path, output: Path) -> Source:
    """Write what was taken from a checkpoint (a file, or a model of timm) as a backbone file."""
    digest = source_sha256(checkpoint, conversion)
    source = dataclasses.replace(conversion.source, file_name=one_line(checkpoint.name), sha256=digest)
    write_backbone_file(output, conversion.spec, source, conversion.state_dict)
    return source


def source_sha256(source: Path, conversion: Conversion) -> str:
    """The digest of a checkpoint file; of the weights (names, types, shapes, values) where they do not lie in one file."""
    if not is_timm_name(source) and source.is_file() and source.suffix != ".json":
        return file_sha256(source)
    return weights_sha256(conversion.state_dict)
