"""The page of real processes, their statistics at exit, and that both tell the same."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from hakmem import live, run
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter
from hakmem.live import Page, Sampler
from hakmem.residency import PLACES


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def soak(native: Build, folder: Path, *arguments: str, **gates: str) -> tuple[list[str], dict[str, str]]:
    command = [str(native.driver("soak", "hakmem")), "--ws=20000", *(arguments or ("--seconds=100",))]
    return command, {"HAKMEM_STATS_LIVE": str(folder), "HAKMEM_STATS_JSON": str(folder / "end.json"), **gates}


@contextmanager
def running(native: Build, folder: Path, **gates: str) -> Iterator[subprocess.Popen[bytes]]:
    """A soak that has filled its slots."""
    command, env = soak(native, folder, **gates)
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as child:
        try:
            # Blocks come and go at random: after so much work half of the slots are full, however slow the machine.
            while not (folder / f"hakmem.{child.pid}").exists() or psutil.Process(child.pid).cpu_times().user < 0.2:
                time.sleep(0.02)
            yield child
        finally:
            child.kill()


def end(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGTERM)  # a soak ends in order
    assert child.wait() == 0


def test_page_and_statistics_at_exit_tell_what_a_process_holds(native: Build, tmp_path: Path) -> None:
    with running(native, tmp_path) as child:
        child.send_signal(signal.SIGSTOP)
        seen = live.read(str(child.pid))
        assert seen.state == "running" and seen.pid == child.pid and seen.build == "standard"
        places = seen.places()
        assert list(places.index) == [place for place in PLACES if place in places.index]
        # About 10,000 blocks of 16..1039 bytes, rounded up, and what the caches hold beside them.
        assert seen.cached is not None and places["cached_mb"].sum() > 0.05
        held = (places["out_mb"] - places["cached_mb"])[[f"C{c}" for c in range(8)]].sum()
        assert held == pytest.approx(10_000 * 540 / 2**20, rel=0.05)
        assert (places["resident_mb"] >= places["out_mb"] - 0.1).drop("large").all()
        metadata = seen.metadata.set_index("name")
        assert 0 < metadata.loc["unit records", "resident_kb"] < metadata.loc["unit records", "kb"]
        assert seen.counters["refill_slab"] > 0 and seen.counters["threads"] == 1
        child.send_signal(signal.SIGCONT)
        end(child)
        assert not (tmp_path / f"hakmem.{child.pid}").exists()
    told = json.loads((tmp_path / "end.json").read_text())
    assert told["pid"] == child.pid and told["peak_rss_kb"] > 6000
    after = live.read(str(tmp_path / "end.json"))
    assert after.state == "ended" and after.counters["refill_slab"] >= seen.counters["refill_slab"]
    summed = {place: 0.0 for place in after.places().index}
    octaves = (*(f"C{c}" for c in range(8)), "M")
    for each in told["residency"]["classes"]:
        summed[octaves[each["octave"]]] += each["bytes_resident"] / 2**20
    for place, mb in summed.items():
        if place in octaves:  # what C sums up and what is decoded from the words
            assert after.places()["resident_mb"][place] == pytest.approx(mb)
    assert after.cached is not None and after.cached["blocks"].sum() > 0


def test_a_page_of_a_killed_process_is_left_behind(native: Build, tmp_path: Path) -> None:
    with running(native, tmp_path) as child:
        path = tmp_path / f"hakmem.{child.pid}"
        assert Page(path).alive()
    found = live.read(str(path))
    assert found.state == "left behind" and found.places()["resident_mb"].sum() > 5 and found.cached is None


def test_a_page_that_is_cut_short_is_refused(native: Build, tmp_path: Path) -> None:
    with running(native, tmp_path) as child:
        path = tmp_path / f"hakmem.{child.pid}"
    data = path.read_bytes()
    for size in (len(data) - 4096, len(data) // 2, 20_000):  # copied while it grew, or from a full disk
        path.write_bytes(data[:size])
        with pytest.raises(BadParameter, match=f"cut short: it has {size} bytes"):
            live.read(str(path))


def test_caches_of_a_process_that_ends_meanwhile_are_unknown(
    native: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(native, tmp_path) as child:
        page = Page(tmp_path / f"hakmem.{child.pid}")
        monkeypatch.setattr(live.os, "pread", lambda *_: b"")  # what the kernel answers of memory that is gone
        assert page.cached() is None


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(native: Build, tmp_path: Path) -> None:
    with running(native, tmp_path) as child:
        path = tmp_path / f"hakmem.{child.pid}"
        data = path.read_bytes()
    text, padding = data[: data.index(b"\0")], data[data.index(b"\0") :]
    other = text.replace(f'"pid":{child.pid},'.encode(), f'"pid":{os.getpid()},'.encode())
    shift = len(other) - len(text)  # a number may have a digit more or less, and what follows must stay where it is
    path.write_bytes(other + (padding[shift:] if shift >= 0 else b"\0" * -shift + padding))
    assert not Page(path).alive()
    with pytest.raises(BadParameter, match=f"process {os.getpid()} shows no page: start it with HAKMEM_STATS_LIVE"):
        live.read(str(os.getpid()))


def test_residency_is_sampled_while_a_child_runs(native: Build, tmp_path: Path) -> None:
    command = [str(native.driver("phases", "hakmem")), "1", "--grow-mb=20", "--work-ms=300", "--shrink-mb=1"]
    gates = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED", "HAKMEM_STATS_LIVE": str(tmp_path)}
    sampler = Sampler(tmp_path)
    done = run.execute(command, run.environment(gates), timeout_s=120, tick=sampler.tick, tick_s=0.01)
    assert done.status == "ok", done.stderr_tail
    samples = sampler.frame()
    assert list(samples.columns) == ["t_s", *PLACES] and samples["t_s"].is_monotonic_increasing
    total = samples[list(PLACES)].sum(axis=1)
    assert total.max() > 15 and total.iloc[-1] < total.max() / 2  # Lean gives back, class by class
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "neither a live page nor statistics at exit"),
        (b"{}", "holds no residency of hakmem"),
        (b'{"residency":{"classes":[],"map":[[1,2]],"page":4096,"superslab":2097152,"metadata":{}}}', "holds no resid"),
        (b'{"residency":{"classes":[],"map":[[0,-1]],"page":4096,"superslab":0,"metadata":{}}}', "holds no residency"),
        (b'{"residency":{"classes":[],"map":[],"page":4096,"superslab":2097152,"metadata":[]}}', "holds no residency"),
        (b'{"hakmem_live":1', "no live page of hakmem"),
        (b'{"hakmem_live":2}\0', "page of version 2; this hakmem reads version 1"),
        (b'{"hakmem_live":1}\0', "no live page of hakmem"),
    ],
)
def test_another_file_is_refused_in_words(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(BadParameter, match=says):
        live.read(str(path))
    with pytest.raises(BadParameter, match="neither the number of a process nor a file: No such file"):
        live.read(str(tmp_path / "nothing"))
