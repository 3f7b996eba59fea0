"""Tensors of a launch as the kernels take them: spans of memory with strides, or dense copies.

Arrays are numpy arrays, or CPU tensors of torch; bfloat16 travels as int16.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...twin.runner import Buffer
from .planning import PAGE_ALIGN

INT32_MAX = 2**31 - 1


def as_array(value: Any) -> np.ndarray:
    """A numpy view of an array or CPU tensor; bfloat16 as int16."""
    if hasattr(value, "detach"):
        tensor = value.detach()
        if str(tensor.dtype) == "torch.bfloat16":
            torch = sys.modules[type(tensor).__module__.partition(".")[0]]
            return np.asarray(tensor.view(torch.int16).numpy())
        return np.asarray(tensor.numpy())
    return np.asarray(value)


def span(name: str, array: np.ndarray) -> Buffer:
    """The memory from an array's first to its last element, gaps included.

    Raises ValueError where strides fall, are no whole elements or do not fit 31 bits.
    """
    if array.size == 0:
        return Buffer(name, 0, 0)
    last = array.itemsize
    for size, stride in zip(array.shape, array.strides, strict=True):
        if size > 1 and not 0 < stride <= INT32_MAX:
            raise ValueError(
                f"{name} has a stride of {stride} bytes, the kernel takes 1..{INT32_MAX}"
            )
        last += (size - 1) * stride
    return Buffer(name, int(array.__array_interface__["data"][0]), last, array)


def strides(name: str, array: np.ndarray) -> tuple[int, ...]:
    """Elements from one index to the next, of all dims but the last, which must be dense.

    A dim of one element counts as dense, whatever its stride.
    """
    found, dense = [], array.itemsize
    for size, stride in zip(reversed(array.shape), reversed(array.strides), strict=True):
        found.append((dense if size <= 1 else stride) // array.itemsize)
        dense = found[-1] * array.itemsize * max(size, 1)
    if array.size and found and found[0] != 1:
        raise ValueError(
            f"{name} has a stride of {found[0]} elements along its last dim, the kernel takes 1"
        )
    return tuple(reversed(found))[:-1]


def token_strides(name: str, array: np.ndarray) -> tuple[int, int]:
    """``strides`` of an array [tokens, heads, channels]."""
    token, head = strides(name, array)
    return token, head


def page_strides(name: str, array: np.ndarray) -> tuple[int, int]:
    """Bytes from one page to the next and within a page along its first dim; a page is dense and aligned.

    Raises ValueError where pages do not start at multiples of PAGE_ALIGN bytes.
    """
    inner = int(np.prod(array.shape[2:], dtype=np.int64)) * array.itemsize
    page = int(array.strides[0]) if array.shape[0] > 1 else max(1, array.shape[1]) * inner
    if array.size == 0:
        return page, inner
    address = int(array.__array_interface__["data"][0])
    if address % PAGE_ALIGN or (array.shape[0] > 1 and page % PAGE_ALIGN):
        raise ValueError(
            f"{name} starts at address {address} with pages {page} bytes apart, both must be multiples "
            f"of {PAGE_ALIGN}"
        )
    if not array[0].flags.c_contiguous:
        raise ValueError(f"{name} has gaps within a page, the kernel takes dense ones")
    return page, inner


class Dense:
    """Small tensors as the kernel takes them: dense. Copies of views with gaps are written back."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._back: list[tuple[np.ndarray, np.ndarray]] = []

    def buffer(self, name: str, written: bool = False) -> Buffer:
        """An argument; absent and empty ones are null."""
        value = self._tensors.get(name)
        if value is None:
            return Buffer(name, 0, 0)
        array = as_array(value)
        if array.size == 0:
            return Buffer(name, 0, 0)
        if array.flags.c_contiguous:
            return Buffer.of(name, array)
        copy = np.ascontiguousarray(array)
        if written:
            self._back.append((array, copy))
        return Buffer.of(name, copy)

    def write_back(self) -> None:
        """What the kernel wrote into copies, to where it belongs."""
        for array, copy in self._back:
            array[...] = copy
