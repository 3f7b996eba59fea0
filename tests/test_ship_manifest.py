"""A manifest that lacks something or has it wrong is told in one sentence, whatever it is."""

from __future__ import annotations

import copy as copies
import importlib.util
import io
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilewright.ship import layout
from tilewright.ship.bundle import Bundle

pytest_plugins = ("fakes.bundle_fixtures",)

Place = tuple[str | int, ...]


@pytest.fixture(scope="module")
def verify(made: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """verify.py of a copy of the bundle, imported here; only its manifest is ever changed."""
    folder = tmp_path_factory.mktemp("manifest") / "bundle"
    shutil.copytree(made.folder, folder)
    spec = importlib.util.spec_from_file_location("shipped_verify", folder / "verify.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    spec.loader.exec_module(module)
    yield module
    sys.dont_write_bytecode = before


def run(module: ModuleType, manifest: Any) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code and the rows by stage of a whole run, its last five stages left out."""
    layout.write_json(module.HERE / "manifest.json", manifest)
    module._in_child = lambda options: iter(())
    out = io.StringIO()
    with redirect_stdout(out):
        code = module.main(["--json", "-"])
    return code, {row["stage"]: row for row in json.loads(out.getvalue())["rows"]}


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every key and index, at any depth."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


def changed(manifest: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    """A copy with one value replaced; with `...` it is taken out."""
    spoiled = copies.deepcopy(manifest)
    inner: Any = spoiled
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return spoiled


OTHERS = st.sampled_from([..., None, True, 7, 0.5, "x", [], {}, [3], {"x": []}])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_anything_dropped_or_of_another_type_is_never_a_traceback(
    made: Bundle, verify: ModuleType, data: st.DataObject
) -> None:
    """Whatever is changed, the run ends with a verdict of sentences: passed where it does not matter."""
    # Files and ops are many and alike: a place is drawn level by level, so that rare names come up too.
    manifest, place = made.manifest, ()
    inner: Any = manifest
    while isinstance(inner, dict | list) and inner and (not place or data.draw(st.booleans())):
        keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
        place = (*place, data.draw(st.sampled_from(keys)))
        inner = inner[place[-1]]
    code, rows = run(verify, changed(manifest, place, data.draw(OTHERS)))
    assert code in (0, 1, 3)
    assert all(row["detail"].endswith(".") for row in rows.values())
    assert (code == 0) == all(row["ok"] for row in rows.values())


NEEDED: list[Place] = [
    *(
        (name,)
        for name in ("schema", "id", "namespace", "files", "needs", "library", "cpu_levels", "ops")
    ),
    *(("needs", n) for n in ("system", "machine", "glibc", "python", "torch", "cpu_level")),
    *(("library", n) for n in ("path", "needed", "symbol_versions")),
    ("files", "verify.py", "sha256"),
    ("ops", "gemm", "schema"),
    ("ops", "gemm", "tensors"),
    ("ops", "gemm", "flags", 0, "values"),
]


@pytest.mark.parametrize("place", NEEDED, ids=lambda p: ".".join(map(str, p)))
@pytest.mark.parametrize("value", [..., None, 7, ["x", 3]], ids=["gone", "null", "7", "a list"])
def test_what_a_stage_reads_is_asked_for_by_its_name(
    made: Bundle, verify: ModuleType, place: Place, value: Any
) -> None:
    code, rows = run(verify, changed(made.manifest, place, value))
    assert code == 1
    said = rows["manifest"]["detail"]
    assert rows["manifest"]["state"] == "failed"
    if place != ("schema",):
        assert said.startswith("manifest.json does not fit tilewright/bundle/1: ")
    assert str(place[-1]) in said
    assert {
        row["state"] for stage, row in rows.items() if stage not in ("manifest", "overall")
    } == {"not run"}


def test_the_shape_is_that_of_a_manifest(made: Bundle, verify: ModuleType) -> None:
    """Nothing that `ship` writes is unasked for, so nothing can go missing unseen."""
    assert set(verify.SHAPE) == set(made.manifest)
    assert verify.misfit(made.manifest, verify.SHAPE) == ""
    code, rows = run(verify, made.manifest)
    assert code == 0, rows


@pytest.mark.parametrize(
    ("place", "value", "stage", "sentence"),
    [
        (
            ("library", "path"),
            "../other.so",
            "manifest",
            "library.path is '../other.so', which is not among",
        ),
        (("needs", "cpu_level"), "sse9", "cpu", "names CPU level 'sse9'; accepted: scalar"),
        (("cpu_levels",), ["scalar", "sse9"], "cpu", "names CPU level 'sse9'"),
        (("cpu_levels",), [], "cpu", "Of the compiled levels (none) this CPU has none"),
        (("needs", "machine"), "m68k", "platform", "The library is for Linux on m68k"),
    ],
)
def test_values_that_cannot_be_are_told_where_they_are_used(
    made: Bundle, verify: ModuleType, place: Place, value: Any, stage: str, sentence: str
) -> None:
    code, rows = run(verify, changed(made.manifest, place, value))
    assert code == 1 and sentence in rows[stage]["detail"]
