"""Both sides of a gate from git: trees, builds kept by content, and the calls each side makes. Real git, real compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tilewright import native
from tilewright.errors import BuildFailed, Unavailable, UsageError
from tilewright.perf.regression import builds, session
from tilewright.perf.regression.builds import Side
from tilewright.perf.studies.gate_errors import slower_side
from tilewright.registry import family, package_folder

KERNELS = package_folder("tilewright.kernels")
HOST = """#include "_host/abi.h"
#include "_host/export.hpp"
TW_EXPORT int tw_host_toy(const tw_call*) {{ return {value}; }}
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with our shared host sources and one kernel that takes no time to build."""
    monkeypatch.setenv("TILEWRIGHT_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "repository"
    shutil.copytree(KERNELS / "_host", root / "kernels" / "_host")
    (root / "kernels" / "toy").mkdir()
    (root / "kernels" / "toy" / "host.cpp").write_text(HOST.format(value=0))
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "one")
    return root


def test_the_working_tree_is_a_tree_and_the_index_stays_as_it_is(repository: Path) -> None:
    head = builds.tree_of(repository, "HEAD")
    assert builds.working_tree(repository) == head
    (repository / "new.txt").write_text("not added")
    before = git(repository, "status", "--porcelain")
    changed = builds.working_tree(repository)
    assert changed != head
    assert git(repository, "status", "--porcelain") == before == "?? new.txt"
    assert "new.txt" in git(repository, "ls-tree", "--name-only", changed)


def test_a_build_belongs_to_its_content(repository: Path) -> None:
    base = builds.build(repository, builds.tree_of(repository, "HEAD"), "HEAD")
    assert int(native.module().symbol(str(base.library), "tw_host_toy")) != 0
    made = base.library.stat().st_mtime_ns
    (repository / "notes.md").write_text("no kernel")
    other = builds.build(repository, builds.working_tree(repository), builds.WORKING_TREE)
    assert other.tree != base.tree
    assert other.library == base.library and base.library.stat().st_mtime_ns == made
    (repository / "kernels" / "toy" / "host.cpp").write_text(HOST.format(value=1))
    changed = builds.build(repository, builds.working_tree(repository), builds.WORKING_TREE)
    assert changed.library != base.library
    assert changed.library_hash != base.library_hash


def test_a_slower_build_exports_the_same_kernel(repository: Path) -> None:
    base = builds.build(repository, builds.tree_of(repository, "HEAD"), "HEAD")
    slow = slower_side(base)
    assert slow.library_hash != base.library_hash
    assert int(native.module().symbol(str(slow.library), "tw_host_toy")) != 0


def test_what_cannot_be_built_is_one_sentence(repository: Path) -> None:
    (repository / "kernels" / "toy" / "host.cpp").write_text("this is no C++")
    tree = builds.working_tree(repository)
    with pytest.raises(BuildFailed, match="the working tree"):
        builds.build(repository, tree, builds.WORKING_TREE)
    shutil.rmtree(repository / "kernels" / "toy")
    with pytest.raises(UsageError, match="no host kernels"):
        builds.build(repository, builds.working_tree(repository), builds.WORKING_TREE)


def test_an_unknown_revision_is_named_with_what_is_accepted(repository: Path) -> None:
    with pytest.raises(UsageError, match="'v9' is neither a file nor a revision.*tilewright bench"):
        builds.tree_of(repository, "v9")


def test_outside_a_repository_there_is_nothing_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builds, "package_folder", lambda _: tmp_path)
    with pytest.raises(Unavailable, match="needs the git repository"):
        builds.repository()


def small(**sizes: int) -> session.Benchmark:
    found = family("gemm")
    case = found.spec.case({"M": 4, "N": 32, "K": 32, **sizes}, "fp32")
    return session.Benchmark(found, case, 1, 0)


def test_another_side_is_asked_through_its_own_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the package with another default config: the calls differ in the config and in nothing else."""
    monkeypatch.setenv("TILEWRIGHT_DATA", str(tmp_path / "data"))
    root = KERNELS.parent
    sources = tmp_path / "tree"
    for room in ("src/tilewright", "kernels", "bindings"):
        shutil.copytree(
            root / room, sources / room, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    shutil.rmtree(sources / "kernels" / "gemm" / "configs", ignore_errors=True)
    side = Side("other", "t", sources, Path("none.so"))
    (other,), (ours,) = (
        session.calls_of(side, [small()]),
        session.calls_of(side, [small()], own=True),
    )
    assert session.mismatch(other, ours) is None
    assert other["inputs"] == ours["inputs"]
    assert other["attributes"].keys() == ours["attributes"].keys()
    assert other["config_source"] != ours["config_source"] or other["config"] == ours["config"]


def test_a_side_whose_python_is_broken_says_so(tmp_path: Path) -> None:
    package = tmp_path / "tree" / "src" / "tilewright"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('half a package')")
    side = Side("v0", "t", tmp_path / "tree", Path("none.so"))
    with pytest.raises(Unavailable, match="the Python package of v0 .*half a package"):
        session.calls_of(side, [small()])


@pytest.mark.parametrize(
    ("base", "new", "said"),
    [
        ({"reason": "KeyError: x"}, {}, "base does not do this benchmark: KeyError"),
        ({"inputs": 1, "outputs": 1}, {"inputs": 2, "outputs": 1}, "different inputs"),
        ({"inputs": 1, "outputs": 1}, {"inputs": 1, "outputs": 2}, "different outputs"),
    ],
)
def test_calls_that_cannot_share_memory_are_not_compared(
    base: dict[str, object], new: dict[str, object], said: str
) -> None:
    assert said in str(session.mismatch(base, new))
