"""A stand-in for torch, whose tensors refuse what torch's refuse; the tests need no torch."""

from __future__ import annotations

import types
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array on another device, part of a graph of gradients, of a type NumPy may not have."""

    values: Any
    dtype: str = "float64"
    device: str = "cuda:0"
    requires_grad: bool = True

    def __post_init__(self):
        kind = "float32" if self.dtype == "bfloat16" else self.dtype
        rounded = np.asarray(self.values).astype(kind)
        if self.dtype == "bfloat16":
            rounded = (rounded.view(np.uint32) & 0xFFFF0000).view(np.float32)
        object.__setattr__(self, "values", rounded)

    def detach(self):
        return replace(self, requires_grad=False)

    def cpu(self):
        return replace(self, device="cpu")

    def double(self):
        return replace(self, dtype="float64")

    def float(self):
        return replace(self, dtype="float32")

    def numpy(self):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        if self.device != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        if self.dtype == "bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def __getitem__(self, key):
        return replace(self, values=self.values[key])

    def clamp(self, *, min):
        return replace(self, values=np.maximum(self.values, min))

    def is_floating_point(self):
        return "float" in self.dtype


class Module:
    """A layer of a network."""


class Linear(Module):
    """A linear layer in single precision, which takes its own type and device alone."""

    def __init__(self, weight):
        self.weight = Tensor(weight, "float32")

    def parameters(self):
        yield self.weight

    def __call__(self, x):
        assert (x.dtype, x.device) == (self.weight.dtype, self.weight.device)
        return replace(self.weight, values=x.values @ self.weight.values.T)


def relu(tensor):
    """Refuse arrays, as torch does."""
    if not isinstance(tensor, Tensor):
        raise TypeError("relu(): argument 'input' must be Tensor")
    return tensor.clamp(min=0)


def as_tensor(values, dtype="float64", device="cpu"):
    return Tensor(values, dtype, device, requires_grad=False)


torch = types.SimpleNamespace(
    Tensor=Tensor,
    nn=types.SimpleNamespace(Module=Module, Linear=Linear),
    as_tensor=as_tensor,
    finfo=np.finfo,
    float64="float64",
    relu=relu,
    zeros=lambda shape, dtype: as_tensor(np.zeros(shape), dtype),
)
