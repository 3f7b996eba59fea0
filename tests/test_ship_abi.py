"""The abi stage: what a library asks of torch and of the C++ runtime against what is here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from fakes.gpu import compiled
from tilewright.ship.receiver.verify_parts import host
from tilewright.ship.receiver.verify_parts.elf import dotted, read_elf

TORCH = Path(torch.__file__).parent / "lib"
RUNTIME = "libstdc++.so.6"


def library(folder: Path, text: str, *flags: str) -> Path:
    """A shared library of C++ linked to torch, whatever it leaves undefined."""
    source, path = folder / "asks.cpp", folder / "libasks.so"
    source.write_text(text)
    link = [f"-L{TORCH}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10"]
    compiled(["g++", "-shared", "-fPIC", str(source), "-o", str(path), *link, *flags])
    return path


def calls(*names: str) -> str:
    """C++ that calls functions by the names they have in the file."""
    rows = [f'void f{i}() __asm__("{name}");' for i, name in enumerate(names)]
    return "\n".join([*rows, "void all() {", *(f"f{i}();" for i in range(len(names))), "}\n"])


def stage(path: Path) -> tuple[str, str]:
    """State and sentence, with a manifest that tells the truth about the file."""
    elf = read_elf(path)
    facts: dict[str, Any] = {
        "needed": list(elf.needed),
        "symbol_versions": {name: dotted(v) for name, v in elf.versions.items()},
    }
    return host.abi_stage(path, facts)


ABSENT = [
    "aoti_torch_no_such_function",
    "torch_no_such_function",
    "_ZN3c1012NoSuchThing3runEv",
    "_ZNK3c1012NoSuchThing3runEv",
    "_ZN2at12NoSuchThing3runEv",
    "_ZNK2at12NoSuchThing3runEv",
    "_ZN5torch12NoSuchThing3runEv",
    "_ZNK5torch12NoSuchThing3runEv",
    "_ZTIN3c1012NoSuchThingE",
]


@pytest.mark.parametrize("name", ABSENT)
def test_a_function_that_this_torch_lacks_is_named(tmp_path: Path, name: str) -> None:
    state, sentence = stage(library(tmp_path, calls("aoti_torch_get_dim", name)))
    assert state == "failed"
    assert "1 of the 2 torch functions the library calls are not in this torch" in sentence
    assert sentence.endswith(f"the first: {name}.")


def test_the_cpp_functions_that_this_torch_has_are_counted(tmp_path: Path) -> None:
    names = []
    for file, prefixes in (
        ("libc10.so", ("_ZN3c10", "_ZNK3c10")),
        ("libtorch_cpu.so", ("_ZN2at", "_ZNK2at", "_ZN5torch", "_ZNK5torch")),
    ):
        exported = read_elf(TORCH / file).exported
        names += [next(name for name in exported if name.startswith(p)) for p in prefixes]
    state, sentence = stage(library(tmp_path, calls(*names)))
    assert state == "passed", sentence
    assert sentence.startswith("6 torch functions are called and all are in this torch")


STREAM = (
    "#include <sstream>\nint all(int x) { std::ostringstream s; s << x; return s.str().size(); }\n"
)


def runtime_that_offers(folder: Path, *versions: str) -> Path:
    """A libstdc++ with these symbol versions and nothing in it."""
    script, source, path = folder / "versions", folder / "empty.cpp", folder / RUNTIME
    script.write_text("".join(f"{v} {{ global: f{i}; }};\n" for i, v in enumerate(versions)))
    source.write_text("".join(f'extern "C" void f{i}() {{}}\n' for i in range(len(versions))))
    compiled(
        [
            "g++",
            "-shared",
            "-fPIC",
            "-nostdlib",
            str(source),
            "-o",
            str(path),
            f"-Wl,--version-script,{script}",
        ]
    )
    return path


@pytest.mark.parametrize(
    ("offered", "sentence"),
    [
        (("GLIBCXX_3.4.10", "CXXABI_1.3.99"), "it has at most GLIBCXX_3.4.10"),
        (("GLIBCXX_3.4.99", "CXXABI_1.1"), "it has at most CXXABI_1.1"),
        (("CXXABI_1.3.99",), "it has no GLIBCXX"),
    ],
)
def test_a_runtime_that_is_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offered: tuple[str, ...], sentence: str
) -> None:
    runtime = runtime_that_offers(tmp_path, *offered)
    monkeypatch.setattr(host, "runtime_library", lambda folder: runtime)
    state, said = stage(library(tmp_path, STREAM))
    assert state == "failed"
    assert said.startswith(f"{runtime} is too old: the library needs ") and sentence in said


def test_the_runtime_of_this_machine_is_found_and_new_enough(tmp_path: Path) -> None:
    state, sentence = stage(library(tmp_path, STREAM))
    assert state == "passed", sentence
    assert re.search(
        rf"; /.*{re.escape(RUNTIME)}\S* offers CXXABI [\d.]+, GLIBCXX [\d.]+\.$", sentence
    )


def test_a_runtime_that_is_not_found_is_left_to_loading_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "runtime_library", lambda folder: None)
    state, sentence = stage(library(tmp_path, STREAM))
    assert state == "passed"
    assert sentence.endswith("was not found, so it is left to loading whether it is new enough.")


def test_a_cpp_name_without_a_version_is_looked_for_too(tmp_path: Path) -> None:
    """Versions say nothing of names that were bound to some other library's copy when linking."""
    name = "_ZNSt12no_such_name3runEv"
    state, sentence = stage(library(tmp_path, STREAM + calls(name).replace("all()", "more()")))
    assert state == "failed"
    assert sentence.startswith(f"{name} is neither in this torch nor in /")


def test_the_runtime_beside_torch_comes_first(tmp_path: Path) -> None:
    (tmp_path / RUNTIME).write_bytes(b"")
    assert host.runtime_library(tmp_path) == tmp_path / RUNTIME
    found = host.runtime_library(tmp_path / "elsewhere")
    assert found is not None and found.is_file()


def test_versions_that_a_library_defines_are_those_of_readelf() -> None:
    path = host.runtime_library(Path("/nowhere"))
    assert path is not None
    shown = subprocess.run(
        ["readelf", "-VW", str(path)], capture_output=True, text=True, check=True
    ).stdout
    defines = shown[shown.index("Version definition") :]
    for prefix in ("GLIBCXX", "CXXABI"):
        numbers = re.findall(rf"Name: {prefix}_(\d[\d.]*)", defines)
        highest = max(tuple(map(int, n.split("."))) for n in numbers)
        assert read_elf(path).defined[prefix] == highest
