"""Finding families: our own folders, folders the user names, and other people's packages.

A family is a folder with a `spec.py` that defines `SPEC`. Backends are found beside it by file
name. Sources, in order: `tilewright.kernels`, the folders in the environment variable
TILEWRIGHT_FAMILIES (os.pathsep between them; each a family or a folder of families), and the entry
points of group `tilewright.families` (each naming a package that contains a spec module).
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from tilewright.errors import IMPORT_CRASHES, TilewrightError, UsageError, unknown
from tilewright.spec import KernelSpec

FAMILIES_VARIABLE = "TILEWRIGHT_FAMILIES"
ENTRY_POINT_GROUP = "tilewright.families"


@dataclass(frozen=True, slots=True)
class Family:
    """A spec together with where it was found: its folder and the package its modules import as."""

    spec: KernelSpec
    folder: Path
    package: str
    origin: str

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def built_in(self) -> bool:
        return self.origin == "tilewright"

    def has(self, file: str) -> bool:
        return (self.folder / file).is_file()

    def module(self, name: str) -> ModuleType:
        """Import a module beside the spec, such as `reference` or `triton`."""
        return importlib.import_module(f"{self.package}.{name}")

    @property
    def ascendc_folder(self) -> Path:
        """Where the AscendC sources of the family are (it need not exist)."""
        if self.built_in:
            return package_folder("tilewright.ascendc") / "ops" / self.name
        return self.folder / "ascendc"

    @property
    def ascendc_package(self) -> str:
        return f"tilewright.ascendc.ops.{self.name}" if self.built_in else f"{self.package}.ascendc"


@cache
def package_folder(package: str) -> Path:
    """The source folder of an importable package, without importing heavy things."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"package {package} is not installed")
    for location in spec.submodule_search_locations:
        if (Path(location) / "__init__.py").exists():
            return Path(location)
    return Path(next(iter(spec.submodule_search_locations)))


def _load(folder: Path, package: str, origin: str) -> Family:
    if package not in sys.modules and not package.startswith("tilewright.kernels"):
        _make_package(package, folder)
    try:
        module = importlib.import_module(f"{package}.spec")
    except TilewrightError:
        raise
    except IMPORT_CRASHES as error:
        raise UsageError(
            f"{folder / 'spec.py'} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, KernelSpec):
        raise UsageError(f"{folder / 'spec.py'} does not define SPEC, a tilewright.spec.KernelSpec")
    return Family(spec, folder, package, origin)


def _make_package(package: str, folder: Path) -> None:
    """Register a folder as a package, so that relative imports beside a spec work anywhere."""
    parent, _, _ = package.rpartition(".")
    if parent and parent not in sys.modules:
        sys.modules[parent] = ModuleType(parent)
        sys.modules[parent].__path__ = []
    module = ModuleType(package)
    module.__path__ = [str(folder)]
    sys.modules[package] = module


def _external_folders() -> Iterator[Path]:
    for entry in filter(None, os.environ.get(FAMILIES_VARIABLE, "").split(os.pathsep)):
        path = Path(entry).expanduser().resolve()
        if (path / "spec.py").is_file():
            yield path
        elif path.is_dir():
            yield from sorted(p.parent for p in path.glob("*/spec.py"))
        else:
            raise UsageError(
                f"{FAMILIES_VARIABLE} names '{entry}', which is not a folder with a spec.py"
            )


def _discover() -> Iterator[Family]:
    root = package_folder("tilewright.kernels")
    for spec_file in sorted(root.glob("*/spec.py")):
        name = spec_file.parent.name
        yield _load(spec_file.parent, f"tilewright.kernels.{name}", "tilewright")
    for folder in _external_folders():
        # Folders of the same name elsewhere are other packages.
        place = f"{zlib.crc32(str(folder).encode()):08x}"
        yield _load(folder, f"tilewright_families.{folder.name}_{place}", str(folder))
    if not _someone_has_entry_points():
        return
    from importlib.metadata import entry_points

    for point in entry_points(group=ENTRY_POINT_GROUP):
        folder = package_folder(point.module)
        distribution = point.dist.name if point.dist else point.name
        yield _load(folder, point.module, distribution)


def _someone_has_entry_points() -> bool:
    """Whether any installed distribution mentions our group: importlib.metadata takes 0.1 s to say so."""
    wanted = f"[{ENTRY_POINT_GROUP}]".encode()
    for place in map(Path, filter(None, sys.path)):
        if place.is_dir():
            for file in place.glob("*-info/entry_points.txt"):
                if wanted in file.read_bytes():
                    return True
    return False


@cache
def families() -> dict[str, Family]:
    """Every family that can be found, by name; raises UsageError when two share a name."""
    found: dict[str, Family] = {}
    for family in _discover():
        if family.name in found:
            raise UsageError(
                f"two families are named '{family.name}': {found[family.name].folder} and {family.folder}"
            )
        found[family.name] = family
    return found


def family(name: str) -> Family:
    """One family; raises UsageError naming the known ones."""
    try:
        return families()[name]
    except KeyError:
        raise unknown("family", name, list(families())) from None


def select(names: list[str] | tuple[str, ...]) -> list[Family]:
    """The named families, or all of them for an empty list."""
    return [family(n) for n in names] if names else list(families().values())
