"""The CANN build file, as far as it can go without CANN, and the fetching of the ACL headers."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fakes.npu import NPU, OFFLINE, ROOT, acl_headers
from fakes.npu import fetcher as fetcher_module


def _configure(folder: Path, *options: str, cann: str = "") -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ASCEND")}
    environment["ASCEND_HOME_PATH"] = cann
    command = ["cmake", "-S", str(NPU), "-B", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return subprocess.CompletedProcess(
        command, done.returncode, " ".join(done.stdout.split()), " ".join(done.stderr.split())
    )


@pytest.mark.parametrize(
    ("options", "cann", "sentence"),
    [
        ([], "", "CANN is not set up: ASCEND_HOME_PATH is empty"),
        ([], "/usr", "no ascendc.cmake under /usr; this CANN lacks the AscendC compiler"),
        (
            ["-DSOC_VERSION=Ascend310P3"],
            "/usr",
            "SOC_VERSION is 'Ascend310P3'; accepted: Ascend910B1",
        ),
        (["-DRUN_MODE=cpu"], "/usr", "RUN_MODE is 'cpu'; accepted: npu"),
        (["-DTILEWRIGHT_NPU_KERNELS=OFF"], "", "no acl/acl_rt.h in"),
    ],
)
def test_says_what_is_missing(tmp_path: Path, options: list[str], cann: str, sentence: str) -> None:
    done = _configure(tmp_path, *options, cann=cann)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_every_family_becomes_a_library_and_a_binary(tmp_path: Path) -> None:
    # A stand-in for CANN that only notes what it is asked to build.
    cmake = tmp_path / "cann" / "compiler" / "tikcpp" / "ascendc_kernel_cmake"
    cmake.mkdir(parents=True)
    (cmake / "ascendc.cmake").write_text(
        "foreach(name library fatbin_library include_directories)\n"
        "  function(ascendc_${name})\n"
        '    string(REPLACE ";" " " arguments "${ARGV}")\n'
        '    message(STATUS "asked: ${arguments}")\n'
        "  endfunction()\nendforeach()\n"
    )
    acl = tmp_path / "cann" / "include" / "acl"
    acl.mkdir(parents=True)
    (acl / "acl_rt.h").write_text("")
    done = _configure(tmp_path / "build", "-DSOC_VERSION=Ascend910B3", cann=str(tmp_path / "cann"))
    assert done.returncode == 0, done.stderr
    sources = sorted(
        p
        for p in (ROOT / "ascendc" / "ops" / "gemm").glob("*.cpp")
        if not p.name.startswith("host")
    )
    listed = " ".join(str(NPU / ".." / "ops" / "gemm" / p.name) for p in sources)
    listed = " ".join(str(p) for p in sources) if str(sources[0]) in done.stdout else listed
    assert f"asked: tilewright_npu_gemm SHARED {listed}" in done.stdout
    assert f"asked: tilewright_gemm {listed}" in done.stdout


def test_a_wheel_is_unpacked_once_and_only_if_it_is_the_one(tmp_path: Path) -> None:
    fetcher = fetcher_module()
    wheel = tmp_path / "x.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("torch_npu/include/acl/acl_rt.h", "// header")
        archive.writestr("torch_npu/lib/libtorch_npu.so", "no")
    with pytest.raises(fetcher.FetchError, match=f"{fetcher.SHA256} was expected"):
        fetcher.fetch(tmp_path / "cache", wheel)
    with pytest.raises(fetcher.FetchError, match="no file"):
        fetcher.fetch(tmp_path / "cache", tmp_path / "absent.whl")
    assert not (tmp_path / "cache").exists()
    import hashlib

    fetcher.SHA256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    include = fetcher.fetch(tmp_path / "cache", wheel)
    names = sorted(str(p.relative_to(include)) for p in include.rglob("*") if p.is_file())
    assert names == [".complete", "acl/acl_rt.h"]
    assert fetcher.fetch(tmp_path / "cache", tmp_path / "absent.whl") == include, (
        "taken from the cache"
    )


def test_the_script_prints_a_sentence_and_exits_3(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(NPU / "fetch_acl_headers.py"),
        "--dir",
        str(tmp_path),
        "--wheel",
        str(tmp_path / "x.whl"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.strip() == f"no file {tmp_path / 'x.whl'}"


def test_without_headers_tests_fail_unless_offline_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetcher = fetcher_module()
    monkeypatch.setattr(fetcher, "fetch", lambda: _no_network(fetcher.FetchError))
    monkeypatch.delenv(OFFLINE, raising=False)
    with pytest.raises(
        pytest.fail.Exception, match="cannot be had .no network.; TILEWRIGHT_OFFLINE"
    ):
        acl_headers(fetcher)
    monkeypatch.setenv(OFFLINE, "1")
    with pytest.raises(pytest.skip.Exception, match="TILEWRIGHT_OFFLINE=1 and .*: no network"):
        acl_headers(fetcher)


def _no_network(error: type[Exception]) -> Path:
    raise error("no network")
