"""A GPU where there is none: tensors that say they are on it compute on the CPU, and refuse what those of a real one refuse.

That is to meet a tensor of the CPU in an operation, and to become an array. A GPU's precision, memory, speed and kernels are not
emulated, nor autocast. Autograd has no queue for CUDA here, but one for the device `lazy`, which torch takes these tensors to be on;
only their users see `cuda:0`.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._lazy import ts_backend
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tests.conftest import REPOSITORY

GPU = torch.device("cuda", 0)
TAKE_A_DEVICE = ["zeros", "ones", "empty", "full", "arange", "linspace", "rand", "randn", "randint", "randperm", "eye"]
# Of what these give, the host has to know a size or the value.
WAITING = ("nonzero", "_local_scalar_dense", "item", "is_nonzero", "masked_select", "equal", "_unique2", "bincount")
STREAM = SimpleNamespace(is_capturing=lambda: False)
CUDA = {"device_count": 1, "set_device": None, "get_device_name": "it", "max_memory_allocated": 0, "is_bf16_supported": True}
ACCELERATOR = {"current_accelerator": GPU, "current_stream": STREAM}

ts_backend.init()  # of the device `lazy`; torch allows it once
_device_constructors()  # a list of torch's own functions, also made once

waits: list[str] = []
"""Where our code has waited for the GPU: a file and the function in it."""


def _wait() -> None:
    for frame in reversed(traceback.extract_stack(limit=40)):
        path = Path(frame.filename)
        # The environment is in the repository, too.
        if path.is_relative_to(REPOSITORY) and path.relative_to(REPOSITORY).parts[0] not in ("tests", ".venv"):
            return waits.append(f"{path.relative_to(REPOSITORY)}:{frame.name}")


class OnGPU(Tensor):
    inner: Tensor
    device, is_cuda = GPU, True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGPU":
        shape: dict[str, Any] = {"strides": inner.stride(), "dtype": inner.dtype, "device": "lazy"}
        with torch.inference_mode(inner.is_inference()):
            made: OnGPU = Tensor._make_wrapper_subclass(cls, inner.shape, **shape)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, leaves, options = func._schema.name.removeprefix("aten::"), tree_leaves((args, kwargs)), kwargs or {}
        if name == "to":
            with _Operations():
                return func.decompose(*args, **options)
        outer = {id(value.inner): value for value in leaves if type(value) is OnGPU}
        of_cpu = [value for value in leaves if isinstance(value, Tensor) and type(value) is not OnGPU]
        indices = args[1] if name.startswith(("index", "_index_put")) and isinstance(args[1], list) else []
        to_gpu = "lazy" in str(options["device"]) if options.get("device") else bool(outer)
        if name in ("copy_", "_to_copy"):
            crosses = bool(of_cpu) if outer else to_gpu
            if crosses and not (options.get("non_blocking") and hasattr(args[0], "pinned")):
                _wait()
        elif outer and of_cpu:
            changes = of_cpu[0] is args[0] and name.endswith("_")
            if changes or any(value.ndim for value in of_cpu if not any(value is index for index in indices)):
                raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu! ({name})")
        is_read = name in WAITING or any(index is not None and index.dtype == torch.bool for index in indices)
        if is_read or (outer and not to_gpu):
            _wait()
        if options.get("device"):
            options = {**options, "device": "cpu"}
        found = func(*tree_map(_inner, args), **tree_map(_inner, options))
        made = {id(value): OnGPU(value) for value in tree_leaves(found) if isinstance(value, Tensor) and id(value) not in outer}
        return tree_map(lambda value: {**made, **outer}.get(id(value), value), found) if to_gpu else found

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def new_tensor(self, data: Any) -> Tensor:
        return torch.tensor(data, dtype=self.dtype, device=GPU)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.detach().__reduce_ex__(protocol)


def _inner(value: Any) -> Any:
    return value.inner if type(value) is OnGPU else value


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        emulated = "lazy" in str(kwargs.get("device")) or any(type(value) is OnGPU for value in tree_leaves((args, kwargs)))
        return OnGPU.__torch_dispatch__(func, types, args, kwargs) if emulated else func(*args, **kwargs)


def _on_lazy(plain: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        return plain(*map(_lazy, args), **{name: _lazy(value) for name, value in options.items()})

    return run


def _lazy(value: Any) -> Any:
    return "lazy" if isinstance(value, str | torch.device) and "cuda" in str(value) else value


def _pin_memory(self: Any, *_: object) -> Tensor:
    (copy := self.clone()).pinned = True
    return copy


@contextmanager
def emulated_gpu() -> Iterator[None]:
    """A machine with one GPU in this block."""
    plain_tensor = torch.tensor

    def tensor(data: Any, device: Any = None, **options: Any) -> Tensor:
        return plain_tensor(data, **options) if device is None else plain_tensor(data, **options).to(device)

    with pytest.MonkeyPatch.context() as patch, _Operations():
        for module, answers in ((torch.cuda, CUDA), (torch.accelerator, ACCELERATOR)):
            for name, answer in {"is_available": True, **answers}.items():
                patch.setattr(module, name, lambda *_, answer=answer, **__: answer)
        for owner, name in ((Tensor, "to"), *((torch, name) for name in TAKE_A_DEVICE)):
            patch.setattr(owner, name, _on_lazy(getattr(owner, name)))
        patch.setattr(torch, "tensor", tensor)
        patch.setattr(Tensor, "pin_memory", _pin_memory)
        patch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)  # `Module.to` cannot set their data
        waits.clear()
        yield
