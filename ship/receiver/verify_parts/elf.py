"""What a shared library asks of the system, read from its ELF file with the standard library."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

_DYNAMIC, _DYNSYM, _VERDEF, _VERNEED = 6, 11, 0x6FFFFFFD, 0x6FFFFFFE
_MACHINES = {62: "x86_64", 183: "aarch64"}
_WEAK = 2


class ElfError(Exception):
    """The file is not a 64-bit little-endian ELF shared library."""


@dataclass(frozen=True)
class Elf:
    """`versions` maps a prefix such as GLIBC to the highest version asked for, `defined` to the highest offered."""

    machine: str
    needed: tuple[str, ...]
    undefined: tuple[str, ...]
    exported: tuple[str, ...]
    versions: dict[str, tuple[int, ...]]
    defined: dict[str, tuple[int, ...]]


def read_elf(path: Path) -> Elf:
    """Read the dynamic section, the symbols and the symbol versions; raises ElfError."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _read(data)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise ElfError(f"{path.name} is a damaged ELF file: {error}") from None


def _read(data: mmap.mmap) -> Elf:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")
    machine = struct.unpack_from("<H", data, 18)[0]
    table, size, count = (
        struct.unpack_from("<Q", data, 40)[0],
        *struct.unpack_from("<HH", data, 58),
    )
    # name, type, flags, address, offset, size, link, info, align, entry size
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
    needed: list[str] = []
    undefined: list[str] = []
    exported: list[str] = []
    versions: dict[str, tuple[int, ...]] = {}
    defined: dict[str, tuple[int, ...]] = {}
    for section in sections:
        kind, offset, length, link = section[1], section[4], section[5], section[6]
        if kind not in (_DYNAMIC, _DYNSYM, _VERDEF, _VERNEED):
            continue
        strings = sections[link][4]
        if kind == _DYNAMIC:
            for at in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", data, at)
                if tag == 1:
                    needed.append(_text(data, strings + value))
        elif kind == _DYNSYM:
            for at in range(offset + 24, offset + length, 24):
                name, info, _, place = struct.unpack_from("<IBBH", data, at)
                if place == 0 and info >> 4 != _WEAK:
                    undefined.append(_text(data, strings + name))
                elif place != 0:
                    exported.append(_text(data, strings + name))
        elif kind == _VERNEED:
            _read_versions(data, offset, section[7], strings, versions)
        else:
            _read_defined(data, offset, section[7], strings, defined)
    return Elf(
        _MACHINES.get(machine, f"machine {machine}"),
        tuple(needed),
        tuple(sorted(undefined)),
        tuple(sorted(exported)),
        versions,
        defined,
    )


def _read_versions(
    data: mmap.mmap, offset: int, count: int, strings: int, versions: dict[str, tuple[int, ...]]
) -> None:
    for _ in range(count):
        _, entries, _, first, following = struct.unpack_from("<HHIII", data, offset)
        at = offset + first
        for _ in range(entries):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, at)
            _keep_highest(_text(data, strings + name), versions)
            at += step
            if step == 0:
                break
        offset += following
        if following == 0:
            break


def _read_defined(
    data: mmap.mmap, offset: int, count: int, strings: int, defined: dict[str, tuple[int, ...]]
) -> None:
    for _ in range(count):
        _, _, _, _, _, first, following = struct.unpack_from("<HHHHIII", data, offset)
        # The first name is the version's own, those after it are what it inherits from.
        (name,) = struct.unpack_from("<I", data, offset + first)
        _keep_highest(_text(data, strings + name), defined)
        offset += following
        if following == 0:
            break


def _keep_highest(name: str, versions: dict[str, tuple[int, ...]]) -> None:
    prefix, _, number = name.rpartition("_")
    if prefix and number.replace(".", "").isdigit():
        versions[prefix] = max(versions.get(prefix, ()), numbers(number))


def _text(data: mmap.mmap, offset: int) -> str:
    return data[offset : data.find(b"\0", offset)].decode("ascii")


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `2.13.0+cpu` is (2, 13, 0)."""
    found: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


def dotted(version: tuple[int, ...]) -> str:
    """(2, 13) is `2.13`."""
    return ".".join(map(str, version))
