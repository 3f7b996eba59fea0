"""Toolchains: states, installs that go on after an interruption, and what their absence says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from conftest import CommandLine
from tilewright import toolchains
from tilewright.errors import Unavailable, UsageError
from tilewright.toolchains import install as installing

TOY = toolchains.Toolchain(
    "toy",
    "a toy",
    (toolchains.Package("first-part", "1.0", 5), toolchains.Package("second", "2.0", 1)),
    (3, 11),
    ("Linux x86_64", "Linux aarch64"),
    "test_toolchain:accept",
    ("first_part/unused-*",),
)
probed: list[Path] = []


def accept(found: toolchains.Installed) -> None:
    assert (found.site / "first_part" / "used").is_file()
    probed.append(found.folder)


@dataclass
class FakePip:
    """Writes what pip would; fails at the nth download if told so."""

    fail_at: int = 0
    downloads: list[str] = field(default_factory=list)

    def __call__(self, arguments: Sequence[str]) -> None:
        place = Path(
            arguments[arguments.index("--dest" if "--dest" in arguments else "--target") + 1]
        )
        if arguments[0] == "download":
            self.downloads.append(arguments[-1])
            if len(self.downloads) == self.fail_at:
                raise Unavailable("pip download failed: no route")
            name, version = arguments[-1].split("==")
            (place / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").write_text("wheel")
            return
        (place / "first_part").mkdir(parents=True)
        for file in ("used", "unused-a5"):
            (place / "first_part" / file).write_text(file)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path))
    if toolchains.unsupported(TOY):
        pytest.skip(toolchains.unsupported(TOY))
    return tmp_path


def test_an_install_is_whole_tried_and_done_once(own_cache: Path) -> None:
    pip, said = FakePip(), list[str]()
    assert toolchains.installed(TOY) is None
    found, fresh = installing.install(TOY, said.append, pip)
    assert (
        fresh and found.folder == toolchains.folder(TOY) and found.folder.is_relative_to(own_cache)
    )
    assert (found.site / "first_part" / "used").is_file()
    assert not (found.site / "first_part" / "unused-a5").exists()
    assert probed[-1] != found.folder, "it is tried before it takes its place"
    assert toolchains.stamp(found)["packages"] == {"first-part": "1.0", "second": "2.0"}
    assert said[0] == "downloading first-part 1.0 (5 MiB)"
    again, fresh = installing.install(TOY, said.append, pip)
    assert again == found and not fresh and len(pip.downloads) == 2
    _, fresh = installing.install(TOY, said.append, pip, again=True)
    assert fresh and len(pip.downloads) == 4
    left = sorted(p.name for p in found.folder.parent.iterdir())
    assert left == sorted([".toy.lock", found.folder.name])


def test_an_interrupted_install_leaves_nothing_that_counts_and_goes_on() -> None:
    pip, said = FakePip(fail_at=2), list[str]()
    with pytest.raises(Unavailable, match="no route"):
        installing.install(TOY, said.append, pip)
    assert toolchains.installed(TOY) is None
    second = FakePip()
    installing.install(TOY, said.append, second)
    assert second.downloads == ["second==2.0"]
    assert "first-part 1.0 was downloaded before" in said


def test_a_toolchain_that_does_not_work_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reject(found: toolchains.Installed) -> None:
        raise Unavailable("it does not work here")

    monkeypatch.setitem(globals(), "accept", reject)
    monkeypatch.setattr("test_toolchain.accept", reject)
    with pytest.raises(Unavailable, match="does not work"):
        installing.install(TOY, lambda _: None, FakePip())
    assert toolchains.installed(TOY) is None


def test_other_pins_are_another_folder() -> None:
    newer = toolchains.Toolchain(
        "toy",
        "a toy",
        (toolchains.Package("first-part", "1.1", 5),),
        TOY.python,
        TOY.systems,
        TOY.probe,
    )
    assert toolchains.folder(newer) != toolchains.folder(TOY)


def test_what_this_machine_cannot_have_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    reason = "toy has no wheels for Linux riscv64; there are some for Linux x86_64, Linux aarch64"
    assert toolchains.why_missing(TOY) == reason
    with pytest.raises(Unavailable, match="riscv64"):
        installing.install(TOY, lambda _: None, FakePip())
    monkeypatch.undo()
    monkeypatch.setattr("shutil.which", lambda _: None)
    other = toolchains.Toolchain("toy", "", TOY.packages, (3, 2), TOY.systems, TOY.probe)
    assert toolchains.why_missing(other) == "toy needs CPython 3.2; there is no python3.2 on PATH"


def test_unknown_names_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="unknown toolchain 'nvcc'; accepted: ascend-ir"):
        toolchains.require("nvcc")


def test_pip_without_an_index_is_three_with_its_words(
    tilewright: CommandLine, own_cache: Path
) -> None:
    nowhere = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(own_cache),
    }
    ran = tilewright(
        "toolchain", "install", "ascend-ir", env={"TILEWRIGHT_CACHE": str(own_cache), **nowhere}
    )
    assert ran.code == 3, ran.err
    assert "pip download failed: No matching distribution found for triton-ascend==3.2.0" in ran.err
    assert "Traceback" not in ran.err


def test_absence_is_three_with_the_command_everywhere(
    tilewright: CommandLine, own_cache: Path
) -> None:
    env = {"TILEWRIGHT_CACHE": str(own_cache)}
    command = "tilewright toolchain install ascend-ir"
    ran = tilewright("compile", "gemm", "--target", "ascend:910b1", env=env)
    assert ran.code == 3 and command in ran.err and "Traceback" not in ran.err
    rows = tilewright("list", "gemm", "--backend", "triton", "--json", "-", env=env).document[
        "rows"
    ]
    cells = [r for r in rows if r["target"].startswith("ascend:")]
    chips = {*(f"910b{i}" for i in range(1, 5)), "910_93"}
    assert {r["target"] for r in cells} == {f"ascend:{chip}" for chip in chips}
    assert all(r["state"] == "absent" and command in r["reason"] for r in cells)
    listed = tilewright("toolchain", "list", "--json", "-", env=env).document["rows"]
    (row,) = [r for r in listed if r["name"] == "ascend-ir"]
    assert (
        row["state"] == "absent" and command in row["hint"] and not own_cache.joinpath("x").exists()
    )
    doctor = tilewright("doctor", "--no-ceilings", "--json", "-", env=env)
    (found,) = [r for r in json.loads(doctor.out)["rows"] if r["name"] == "ascend-ir toolchain"]
    assert found["value"] == "absent" and found["ok"] is None and command in found["hint"]


NODE = toolchains.Toolchain(
    "node",
    "libraries from npm",
    (*TOY.packages, toolchains.Package("@scope/part", "3.1", 2, "npm")),
    TOY.python,
    TOY.systems,
    "test_toolchain:accept",
)


def test_a_package_of_npm_is_packed_once_and_unpacked_beside_the_wheels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm, said = tmp_path / "bin" / "npm", list[str]()
    npm.parent.mkdir()
    npm.write_text(
        '#!/bin/sh\necho "$@" >>"$0.log"\nmkdir package && echo it >package/library.so\n'
        "tar czf scope-part-3.1.tgz package && rm -r package\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    with pytest.raises(Unavailable, match="no route"):
        installing.install(NODE, said.append, FakePip(fail_at=2))
    found, fresh = installing.install(NODE, said.append, FakePip())
    assert fresh and (found.site / "part" / "package" / "library.so").read_text() == "it\n"
    assert (found.site / "first_part" / "used").is_file()
    log = npm.with_name("npm.log").read_text()
    assert log == "pack --silent @scope/part@3.1\n"
    assert "downloading @scope/part 3.1 (2 MiB)" in said


def test_without_npm_a_toolchain_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(installing, "interpreter", lambda one: "python")
    with pytest.raises(Unavailable, match="@scope/part comes from npm, and there is no npm on"):
        installing.install(NODE, lambda line: None, FakePip())
