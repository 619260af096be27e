"""Networks that are none of ours, behind the interface of `backbones.base`: any model of timm, and what a user's function returns.

What their maps are is measured by running them, once at their own image size and once at larger sizes.

Shapes: B images, D channels, H x W pixels, h x w positions, N = h*w, L features for a classifier.
"""

import copy
import hashlib
import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed, resample_abs_pos_embed_nhwc, resize_rel_pos_bias_table_simple
from torch import Tensor, nn
from torch.func import functional_call

from backbones.base import Backbone, Tokens, check_size, check_taps, map_as_tokens
from backbones.spec import MOST_MAPS, FunctionSpec, TimmSpec
from common.distributed import local_rank
from common.files import one_line

USUAL_IMAGE_SIZE = 224  # of a network without an attribute `image_size`
_REFUSALS = (RuntimeError, AssertionError, ValueError, TypeError, LookupError, NotImplementedError)
"""What networks of others raise for an input that they do not take."""
_SIZES_KEPT = 64  # networks of timm that were built for one input size, without weights

held_networks: dict[str, tuple[nn.Module, int]] = {}
"""Networks in memory, with the epochs of their training, by the names of functions that, for this process, return them."""

# timm's transformers take other sizes than their own only if asked to.
_ANY_SIZE: tuple[dict[str, Any], ...]
_ANY_SIZE = ({"dynamic_img_size": True, "strict_img_size": False}, {"dynamic_img_size": True}, {"strict_img_size": False}, {})


@torch.no_grad()
def measure(maps_of: Callable[[Tensor], Sequence[Tensor]], side: int, device: torch.device) -> dict[str, Any]:
    """The fields of a spec that running a network on square images of this side, and on larger ones, shows.

    ValueError if its maps are no maps of a whole stride.
    """

    def shapes(height: int, width: int) -> list[tuple[int, ...]]:
        return [tuple(found.shape) for found in maps_of(torch.zeros(1, 3, height, width, device=device))]

    found = shapes(side, side)
    for number, (_, _, h, w) in enumerate(found):
        if h != w or not h or side % h:
            raise ValueError(f"map {number} has {h} x {w} positions for {side} x {side} pixels, which is no whole stride")
    strides = tuple(side // h for _, _, h, _ in found)

    def fits(step: int) -> bool:
        base = side + -side % step
        height, width = base + step, base + 2 * step
        try:
            return [shape[2:] for shape in shapes(height, width)] == [(height // s, width // s) for s in strides]
        except _REFUSALS:
            return False

    steps = (max(strides), 2 * max(strides), side)
    channels = tuple(shape[1] for shape in found)
    return {"channels": channels, "strides": strides, "image_size": side, "size_step": next(filter(fits, steps), 0)}


class TimmNetwork(Backbone, nn.Module):
    """Mixed into a network of timm that has `forward_intermediates`, whose weights keep timm's names."""

    spec: TimmSpec

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        takes_norm = type(self).__name__ not in ("Hiera", "HieraDet")  # whose `forward_intermediates` refuses the final norm
        final, (last_BDhw,) = self._run(images_B3HW, indices=[self.spec.num_blocks - 1], norm=takes_norm)
        pooled_BL: Tensor = self.forward_head(final, pre_logits=True)  # type: ignore[operator]  # timm's
        return map_as_tokens(last_BDhw, pooled_BL)

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        check_taps(taps, self.spec)
        maps: list[Tensor] = self._run(images_B3HW, indices=list(taps), intermediates_only=True, stop_early=True)
        return maps

    def _run(self, images_B3HW: Tensor, **options: Any) -> Any:
        height, width = images_B3HW.shape[-2:]
        check_size(self.spec, height, width)
        if self.spec.rebuilt and (height, width) != (self.spec.image_size, self.spec.image_size):
            return self._run_rebuilt(images_B3HW, options)
        return self.forward_intermediates(images_B3HW, output_fmt="NCHW", **options)  # type: ignore[operator]

    def _run_rebuilt(self, images_B3HW: Tensor, options: dict[str, Any]) -> Any:
        """Run timm's network for this image size with our weights, whose positions are resampled."""
        height, width = images_B3HW.shape[-2:]
        sized = _sized_network(self.spec.name, height, width, images_B3HW.device)
        sized.train(self.training)
        grid = height // self.spec.strides[0], width // self.spec.strides[0]
        own = dict(self.named_parameters())
        weights = {name: _resampled(name, own[name], shape, grid) for name, shape in sized.shapes.items()}
        kept = {name: value for name, value in self.named_buffers() if name in sized.kept_buffers}
        given = {f"network.{name}": value for name, value in {**weights, **kept}.items()}
        return functional_call(sized, given, (images_B3HW,), options)


class _SizedNetwork(nn.Module):
    """timm's network for one image size, without weights of its own."""

    def __init__(self, name: str, height: int, width: int) -> None:
        super().__init__()
        self.network = timm.create_model(name, num_classes=0, img_size=(height, width))
        self.shapes = {name: value.shape for name, value in self.network.named_parameters()}
        self.kept_buffers = set(self.network.state_dict()) - set(self.shapes)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.new_empty(0)

    def forward(self, images_B3HW: Tensor, **options: Any) -> Any:
        return self.network.forward_intermediates(images_B3HW, output_fmt="NCHW", **options)


@lru_cache(maxsize=_SIZES_KEPT)
def _sized_network(name: str, height: int, width: int, device: torch.device) -> _SizedNetwork:
    home = device if device.type == "meta" else torch.device("cpu")
    # A training's random numbers must not depend on what is kept here, and its gradients not fail on what frozen features made.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), home:
        return _SizedNetwork(name, height, width).to(device)


def _resampled(name: str, value: Tensor, shape: torch.Size, grid: tuple[int, int]) -> Tensor:
    """A weight for another image size, bicubically where it belongs to positions; ValueError for others of another shape."""
    patches = grid[0] * grid[1]
    is_position = "pos_embed" in name and value.ndim in (3, 4)
    # A longer image may have as many patches as the square one, such as 8 x 392 for 56 x 56, and yet none of its positions.
    is_longer = is_position and value.ndim == 3 and grid[0] != grid[1] and math.isqrt(patches) ** 2 == patches <= shape[1]
    if value.shape == shape and not is_longer:
        return value
    resized: Tensor
    if name.endswith("relative_position_bias_table") and value.ndim == 2:
        resized = resize_rel_pos_bias_table_simple(value, grid, tuple(shape))
    elif not is_position or value.shape[-1] != shape[-1]:
        raise ValueError(f"{name} of shape {tuple(value.shape)} has no meaning for another image size")
    elif value.ndim == 4:  # [1, h, w, D]
        resized = resample_abs_pos_embed_nhwc(value, list(shape[1:3]), antialias=False)
    else:
        resized = resample_abs_pos_embed(value, list(grid), num_prefix_tokens=shape[1] - patches, antialias=False)
    return resized


def build_timm_network(spec: TimmSpec, drop_path_rate: float = 0.0) -> TimmNetwork:
    """A network of timm's without a classifier, with fresh weights; ValueError unless the spec is that of the model it names."""
    if spec != timm_spec(spec.name):
        raise ValueError(f"the spec's numbers are not those of {spec.name} in timm {timm.__version__}")
    return _create(spec, drop_path_rate)


def _create(spec: TimmSpec, drop_path_rate: float) -> TimmNetwork:
    for options in _ANY_SIZE:
        try:
            network: Any = timm.create_model(spec.name, num_classes=0, drop_path_rate=drop_path_rate or None, **options)
            break
        except TypeError as error:
            refusal = error
    else:
        what = f"with drop_path_rate={drop_path_rate}" if drop_path_rate else "without a classifier"
        raise ValueError(f"timm does not build {spec.name} {what}: {one_line(str(refusal), 200)}")
    if not hasattr(network, "forward_intermediates"):
        raise ValueError(f"timm's {type(network).__name__} does not offer its intermediate features (forward_intermediates)")
    network.__class__ = type(type(network).__name__, (TimmNetwork, type(network)), {})
    network.spec = spec
    mixed: TimmNetwork = network
    return mixed


@cache
def timm_spec(name: str) -> TimmSpec:
    """The spec of a model of timm, measured without memory for its weights; ValueError if there is none, or its maps are none."""
    if name not in timm.list_models() and name not in timm.list_models(pretrained=True):
        raise ValueError(f"timm {timm.__version__} has no model {name!r}")
    config = timm.get_pretrained_cfg(name)
    side = config.input_size[-1] if config is not None else USUAL_IMAGE_SIZE
    # Without content, on the meta device, a network takes no memory, but does not notice that it looks for positions beyond its own.
    meta, real = torch.device("meta"), torch.device("cpu")
    unmeasured = TimmSpec(name=name, channels=(1,), strides=(1,), image_size=side, size_step=1)
    try:
        found = _measured(unmeasured, meta)
        if found.size_step and config is not None and config.fixed_input_size:
            found = _measured(unmeasured, real)
        if found.size_step:
            return found
        rebuilt = _measured(replace(found, rebuilt=True, size_step=1), meta)
    except _REFUSALS as error:
        raise ValueError(f"timm's {name} gives no usable maps: {_in_one_line(error)}") from error
    return rebuilt if rebuilt.size_step else found


def _measured(spec: TimmSpec, device: torch.device) -> TimmSpec:
    with torch.random.fork_rng(devices=[]), device:
        network: Any = _create(spec, 0.0)
    network.eval()
    options = {"indices": list(range(len(network.feature_info))), "intermediates_only": True}
    return replace(spec, **measure(lambda images_B3HW: network._run(images_B3HW, **options), spec.image_size, device))


class FunctionNetwork(Backbone, nn.Module):
    """What a user's function returns: a module with the two methods of `Backbone`, or one whose forward gives a map or several.

    A map is [B, D, h, w]; several are those of ascending depth. ValueError, which names the function, for anything else.
    """

    spec: FunctionSpec

    def __init__(self, spec: FunctionSpec, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        if drop_path_rate:
            raise ValueError(f"{spec.function} takes no drop_path_rate={drop_path_rate}")
        self.spec = spec
        self.network = call_function(spec.function)

    def forward_tokens(self, images_B3HW: Tensor) -> Tokens:
        check_size(self.spec, *images_B3HW.shape[-2:])
        if has_own_methods(self.network):
            return _checked_tokens(self.spec.function, self.network.forward_tokens(images_B3HW))  # type: ignore[operator]
        return map_as_tokens(_maps(self.spec.function, self.network, images_B3HW)[-1])

    def forward_maps(self, images_B3HW: Tensor, taps: Sequence[int]) -> list[Tensor]:
        check_taps(taps, self.spec)
        check_size(self.spec, *images_B3HW.shape[-2:])
        return _maps(self.spec.function, self.network, images_B3HW, taps)


def has_own_methods(network: nn.Module) -> bool:
    return hasattr(network, "forward_tokens") and hasattr(network, "forward_maps")


def call_function(reference: str) -> nn.Module:
    """The module that `package.module:function` returns; ValueError, in one line, if there is none.

    Weights that the function leaves random are those of seed 0, so that every process and every call has the same.
    """
    if reference in held_networks:
        return copy.deepcopy(held_networks[reference][0])
    module_name, _, name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        where = "its folder must be in PYTHONPATH, or be the one in which the command runs"
        raise ValueError(f"{reference}: there is no module {error.name!r}; {where}") from error
    except Exception as error:  # whatever a user's module does when it is imported
        raise ValueError(f"{reference}: importing {module_name} fails: {_in_one_line(error)}") from error
    function = getattr(module, name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module_name]
        raise ValueError(f"{reference}: {module_name} has no function {name}; it has {', '.join(own) or 'none'}")
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.random.default_generator.manual_seed(0)  # `torch.manual_seed` would also seed GPUs
            network = function()
    except Exception as error:
        raise ValueError(f"{reference}: calling it fails: {_in_one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{reference}: it returns a {type(network).__name__}; it must return a torch.nn.Module")
    return network


def function_spec(reference: str) -> FunctionSpec:
    """The spec of the network that a function returns, measured by running it; ValueError if it gives no maps.

    Its own attribute `image_size` is the side of the images, 224 where it has none.
    """
    network = call_function(reference).eval()
    # A training's current GPU stays the current one.
    device = (
        torch.device("cuda", local_rank() % torch.cuda.device_count()) if torch.cuda.is_available() else torch.device("cpu")
    )
    network, side = network.to(device), getattr(network, "image_size", USUAL_IMAGE_SIZE)
    if type(side) is not int or side < 1:
        raise ValueError(f"{reference}: its image_size is {side!r}; it must be a side in pixels")

    try:
        found = measure(lambda images_B3HW: _maps(reference, network, images_B3HW), side, device)
    except ValueError as error:
        raise ValueError(f"{reference}: {_in_one_line(error).removeprefix(f'{reference}: ')}") from error
    except Exception as error:
        raise ValueError(f"{reference}: its network fails for {side} x {side} pixels: {_in_one_line(error)}") from error
    return FunctionSpec(function=reference, source_sha256=_source_sha256(reference, network), **found)


def _count_taps(network: Any, images_B3HW: Tensor) -> int:
    """How many blocks or stages `forward_maps` gives."""
    if type(count := getattr(network, "num_blocks", None)) is int:
        return count
    for tap in range(MOST_MAPS):
        try:
            if len(network.forward_maps(images_B3HW, [tap])) != 1:
                return tap
        except (ValueError, LookupError):
            return tap
    raise ValueError(f"forward_maps takes any tap; give its network an attribute num_blocks, at most {MOST_MAPS}")


def _maps(reference: str, network: Any, images_B3HW: Tensor, taps: Sequence[int] | None = None) -> list[Tensor]:
    """The maps of a user's network, of all blocks without taps; ValueError unless they are one [B, D, h, w] or several."""
    if has_own_methods(network):
        wanted = range(_count_taps(network, images_B3HW)) if taps is None else taps
        found = network.forward_maps(images_B3HW, list(wanted))
    else:
        found = network(images_B3HW)
    maps = list(found) if isinstance(found, list | tuple) else [found]
    if not maps:
        raise ValueError(f"{reference}: its network gives no map")
    for number, value in enumerate(maps):
        if not isinstance(value, Tensor):
            raise ValueError(f"{reference}: its network gives a {type(value).__name__}; wanted maps [B, D, h, w]")
        if value.ndim != 4:
            shape = tuple(value.shape)
            raise ValueError(f"{reference}: map {number} of its network has the shape {shape}; wanted four sides, [B, D, h, w]")
    return maps if taps is None or has_own_methods(network) else [maps[tap] for tap in taps]


def _checked_tokens(reference: str, found: Any) -> Tokens:
    """The tokens of a user's network; ValueError unless they fit `Tokens`."""
    if not isinstance(found, tuple) or not 3 <= len(found) <= 4:
        raise ValueError(f"{reference}: forward_tokens gives a {type(found).__name__}; wanted Tokens(cls, patches, grid)")
    tokens = Tokens(*found)
    h, w = tokens.grid
    if tokens.patches.ndim != 3 or tokens.patches.shape[1] != h * w or (tokens.cls is not None and tokens.cls.ndim != 2):
        shapes = f"patches {tuple(tokens.patches.shape)} for a grid of {h} x {w}"
        raise ValueError(f"{reference}: forward_tokens gives {shapes}; wanted patches [B, h*w, D], and cls [B, D] or None")
    return tokens


def _source_sha256(reference: str, network: nn.Module) -> str:
    """The digest of the files of the function's package in which the function and parts of its network are defined.

    Of a network in memory, it also is that of the settings of its parts, and, where there is no file because they were typed into an
    interpreter or a notebook, of their compiled methods.
    """
    module_name = reference.partition(":")[0]
    package = module_name.partition(".")[0]
    names = {module_name, *(type(part).__module__ for part in network.modules())}
    own = sorted(name for name in names if name.partition(".")[0] == package)
    digest = hashlib.sha256()
    for name in own:
        file = getattr(sys.modules.get(name), "__file__", None)
        digest.update(name.encode() + b"\0" + (Path(file).read_bytes() if file and Path(file).is_file() else b""))
    if reference in held_networks:
        digest.update("\n".join(_described(part) for part in network.modules()).encode())
    return digest.hexdigest()


def _described(part: nn.Module) -> str:
    """What one module computes, beside its weights: its attributes and the code of its class, without addresses in memory."""
    usual = vars(nn.Module())
    settings = {name: value for name, value in sorted(vars(part).items()) if name not in usual}
    codes = [value.__code__ for value in vars(type(part)).values() if inspect.isfunction(value)]
    # Code within code is printed with the place where it was typed.
    texts = [(code.co_code, code.co_names, [value for value in code.co_consts if not inspect.iscode(value)]) for code in codes]
    return re.sub(r" at 0x\w+", "", f"{type(part).__qualname__} {settings} {texts}")


def weights_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """The digest of weights: names, types, shapes, values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _in_one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return one_line(text, 300)
