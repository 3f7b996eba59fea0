"""Readings beside samples: who reads the clock, and that load and steal are kept over time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tilewright import native
from tilewright.machine import usable_cores
from tilewright.perf import clock, machine_state
from tilewright.perf.clock import Clock
from tilewright.perf.machine_state import Disturbance, Reading, Watch, merged

pytestmark = pytest.mark.alone

VIRTUAL = frozenset({"avx2", "hypervisor"})


@pytest.mark.parametrize(
    ("flags", "cpufreq", "cpuinfo", "chain", "source"),
    [
        (frozenset(), 3000.0, 2000.0, 2500.0, "cpufreq"),
        (frozenset(), None, 2000.0, 2500.0, "cpuinfo"),
        (VIRTUAL, None, 2000.0, 2500.0, "chain"),
        (VIRTUAL, 3000.0, 2000.0, 2500.0, "cpufreq"),
        (VIRTUAL, None, 2000.0, None, "cpuinfo"),
        (frozenset(), None, None, None, "none"),
    ],
)
def test_who_reads_the_clock(
    flags: frozenset[str],
    cpufreq: float | None,
    cpuinfo: float | None,
    chain: float | None,
    source: str,
) -> None:
    """A virtual machine's /proc/cpuinfo repeats the nominal frequency, so it stands behind the chain there."""
    found = clock.choose(flags, lambda: cpufreq, lambda: cpuinfo, lambda: chain)
    assert found.source == source
    assert found.mhz() == {"cpufreq": 3000.0, "cpuinfo": 2000.0, "chain": 2500.0}.get(source)


def test_files_of_the_system_are_read_in_their_units(tmp_path: Path) -> None:
    for cpu in range(64):
        folder = tmp_path / f"cpu{cpu}" / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text("2100000\n")
    assert clock.from_cpufreq(tmp_path) == 2100.0
    assert clock.from_cpufreq(tmp_path / "none") is None
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\ncpu MHz\t\t: 2599.998\n")
    assert clock.from_cpuinfo(info) == 2599.998
    info.write_text("processor\t: 0\n")
    assert clock.from_cpuinfo(info) is None


def test_the_chain_gives_the_clock_of_a_real_core() -> None:
    if native.why_missing():
        pytest.skip(str(native.why_missing()))
    found = clock.from_chain()
    assert found is not None and 300 < found < 8000


class Stats:
    """/proc/stat of a machine with two cores, in which this process is asleep: it advances as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = self.busy = self.stolen = 0.0
        monkeypatch.setattr(machine_state, "_jiffies", lambda: (self.busy, self.stolen))
        monkeypatch.setattr(machine_state.time, "monotonic", lambda: self.wall)
        monkeypatch.setattr(machine_state.time, "process_time", lambda: 0.0)
        monkeypatch.setattr(machine_state, "usable_cores", lambda: 2)
        monkeypatch.setattr(machine_state.os, "cpu_count", lambda: 2)

    def advance(self, seconds: float, busy: float, stolen: float) -> None:
        self.wall += seconds
        self.busy += 2 * seconds * busy
        self.stolen += 2 * seconds * stolen


def test_readings_follow_a_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Stats(monkeypatch)
    speeds = iter([3000.0, 2900.0, 1500.0, 2950.0])
    watch = Watch(lambda: Clock("chain", lambda: next(speeds)))
    for busy, stolen in ((0.0, 0.0), (0.75, 0.25)):
        machine.advance(0.5, busy, stolen)
        watch.tick()
        watch.tick()  # at once again: nothing new is read
    machine.advance(0.5, 0.0, 0.0)
    found = watch.read()
    assert [r.at_s for r in found.readings] == [0.0, 0.5, 1.0, 1.5]
    assert [r.others for r in found.readings] == pytest.approx([None, 0.0, 0.75, 0.0])
    assert [r.steal for r in found.readings] == pytest.approx([None, 0.0, 0.25, 0.0])
    assert (found.others, found.steal) == pytest.approx((0.25, 1 / 12))
    assert found.mhz() == (1500.0, 3000.0) and found.clock_source == "chain"
    assert found.quiet is False


def test_a_table_of_readings_has_nan_for_what_is_not_known() -> None:
    found = Disturbance(None, None, None, (Reading(0.0, 3000.0, None, None, 1.5),), "chain").table()
    assert found.shape == (1, 5)
    assert np.isnan(found[0, 2:4]).all() and found[0, 1] == 3000.0
    assert Disturbance(None, None, None).table().shape == (0, 5)


def test_several_timings_together_are_as_disturbed_as_the_worst() -> None:
    one = Disturbance(0.1, 0.0, 1.0, (Reading(0.0, 1.0, None, None, 1.0),), "chain")
    other = Disturbance(0.4, None, 2.0, (Reading(0.0, 2.0, None, None, 2.0),), "chain")
    found = merged([one, other])
    assert (found.others, found.steal, found.load) == (0.4, 0.0, 2.0)
    assert len(found.readings) == 2
    assert merged([]).quiet is None


def test_processes_that_work_for_us_disturb_nobody() -> None:
    """One that burns a processor counts as others' work only for a watch that was not told of it."""
    burn = "import sys, time\nprint(flush=True)\nend = time.process_time() + 60\nwhile time.process_time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", burn], stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        told, not_told = Watch(processes=[busy.pid]), Watch()
        before, started = machine_state._spent(busy.pid), time.monotonic()
        while machine_state._spent(busy.pid) - before < 0.3 or time.monotonic() - started < 1.0:
            assert time.monotonic() - started < 60
            time.sleep(0.05)
        ours, others = told.read().others, not_told.read().others
        used, wall = machine_state._spent(busy.pid) - before, time.monotonic() - started
        busy.kill()
    assert ours is not None and others is not None and used > 0.1
    cores = max(usable_cores(), os.cpu_count() or 1)
    assert others - ours == pytest.approx(used / wall / cores, abs=0.05)
    assert machine_state._spent(busy.pid) == 0.0
