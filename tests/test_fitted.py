"""Generators fitted to measurements: the trace has the rates, lifetimes and live bytes of what it was fitted to."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from hakmem.errors import BadTrace
from hakmem.traces import events, fitted, generate, trace
from hakmem.traces.events import EVENT, FREE, MALLOC, Events
from hakmem.traces.fitted import Fleet

FLEETBENCH = os.environ.get("HAKMEM_FLEETBENCH")
HEAP = 4 << 20
TABLE = """\
16, 5000.0, 900.0
24, 100.5, 4000.25
48, 20000.0, 3.5
64, 800.0, 1000.0
256, 1.5, 700.0
1000, 300.0, 12.0
4096, 2.0, 100.0
70000, 0.5, 0.25
900000, 1.0, 2.0
"""
SHA256 = {
    "fleet": "3a0e6ad40ccf132c07aaab401106cf9b959589c630ddf3d46daad6cf93d5cbff",
    "empirical": "a7ee78f6ec4bd7be3b29c3988136b8ef4154445b596a0d474cd971f97dcc94b9",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.csv"
    path.write_text(TABLE)
    return path


def pieces(of: generate.Generator) -> Events:
    return np.concatenate([piece.copy() for piece in of.stream().pieces()])


def live_by_size(given: Events, sizes: np.ndarray, after: int, step: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """Mean live blocks of each size over snapshots after so many events, and births of each size since."""
    index = np.searchsorted(sizes, given["size"])
    births = np.zeros((len(given) // step + 1, len(sizes)))
    change = np.zeros_like(births)
    held = {}
    for at, (slot, _, op, _, _) in enumerate(given.tolist()):
        if op == MALLOC:
            held[slot] = index[at]
            births[at // step, index[at]] += 1
            change[at // step, index[at]] += 1
        else:
            change[at // step, held.pop(slot)] -= 1
    live = np.cumsum(change, axis=0)
    return live[after // step :].mean(axis=0), births[after // step + 1 :].sum(axis=0)


def holds_what_it_promises(of: Fleet, given: Events) -> None:
    """Births of each size are binomial; the live count of each size is Poisson, as is the starting set."""
    kept, mean = of.expected()
    stream = of.stream()
    assert events.check(given, stream.slots, 1, 0) is None
    start = int(np.argmax(given["op"] == FREE)) - 1
    live, births = live_by_size(given, kept.sizes, after=start)
    expected = births.sum() * kept.rates / kept.rates.sum()
    assert (np.abs(births - expected) <= 5 * np.sqrt(expected) + 5).all()
    assert (np.abs(live - mean) <= 5 * np.sqrt(mean) + 1).all()
    variance = float((kept.sizes.astype(float) ** 2 * mean).sum())
    assert float((live * kept.sizes).sum()) == pytest.approx(of.heap, abs=5 * variance**0.5)


def test_a_fleet_trace_has_the_rates_and_the_live_set_of_its_table(table: Path) -> None:
    of = Fleet(distribution=table, heap=HEAP, events=400_000)
    holds_what_it_promises(of, pieces(of))


def test_it_starts_in_the_steady_state(table: Path) -> None:
    of = Fleet(distribution=table, heap=HEAP, events=200_000)
    given = pieces(of)
    warm = of.stream().warm
    curve = events.shape(given, of.stream().slots, points=len(given)).live_bytes
    parts = [part.mean() for part in np.array_split(curve[warm:], 4)]
    assert max(parts) - min(parts) < 0.1 * HEAP
    assert np.mean(parts) == pytest.approx(HEAP, rel=0.1)


def test_sizes_too_large_for_the_heap_are_left_out_and_said(table: Path, tmp_path: Path) -> None:
    of, notes = fitted.generator("fleet", {"distribution": str(table), "heap": HEAP, "events": 50_000})
    assert notes["sizes_left_out"] == 1 and notes["distribution"] == "fleet.csv"
    assert notes["share_of_allocations_left_out"] == pytest.approx(1 / 26205, rel=0.01)
    assert notes["share_of_bytes_left_out"] == pytest.approx(1_800_000 / 2_586_374, rel=0.01)
    assert notes["sha256"] == hashlib.sha256(TABLE.encode()).hexdigest()
    generate.make("fleet", of, tmp_path / "x.trace", notes=notes)
    assert trace.read(tmp_path / "x.trace").header.origin.notes == notes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("16, 1.0, 2.0\n24, x, 2\n", "line 2: '24, x, 2' is no size, allocations a second, live objects"),
        ("16, 1.0\n", "line 1: '16, 1.0' is no size"),
        ("16, 0, 2\n", "line 1: '16, 0, 2': sizes are whole numbers, each once, rates and counts above 0"),
        ("16, nan, 2\n", "line 1: '16, nan, 2': sizes are whole"),
        ("16, 1, inf\n", "line 1: '16, 1, inf': sizes are whole"),
        ("nan, 1, 2\n", "line 1: 'nan, 1, 2': sizes are whole"),
        ("inf, 1, 2\n", "line 1: 'inf, 1, 2': sizes are whole"),
        ("16.5, 1, 2\n", "line 1: '16.5, 1, 2': sizes are whole"),
        ("16, 1, 2\n16, 1, 2\n", "line 2: '16, 1, 2': sizes are whole numbers, each once"),
        ("\n", "is empty"),
        ("1000000, 1, 2\n", "all sizes are above a 16th of heap=4194304"),
    ],
)
def test_a_wrong_table_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(BadTrace, match=said):
        Fleet(distribution=tmp_path / "x.csv", heap=HEAP).stream()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadTrace, match="cannot read the distribution .*none.csv"):
        Fleet(distribution=tmp_path / "none.csv").stream()
    with pytest.raises(BadTrace, match="generator fleet needs distribution=FILE; `hakmem trace list`"):
        fitted.generator("fleet", {})


@pytest.mark.parametrize("number", range(10))
def test_every_published_program_makes_a_trace_that_matches_it(number: int) -> None:
    folder = FLEETBENCH
    if folder is None:
        pytest.skip("set HAKMEM_FLEETBENCH to the folder of Fleetbench's TCMALLOC_0.csv .. TCMALLOC_9.csv")
    of = Fleet(distribution=Path(folder) / f"TCMALLOC_{number}.csv", heap=16 << 20, events=600_000)
    holds_what_it_promises(of, pieces(of))


# ---- empirical -------------------------------------------------------------------------------------------------------


def source(path: Path) -> Path:
    """Small blocks that die at once, middling ones that live for 100 allocations, large ones that stay."""
    rows, large = [], 0
    for i in range(3000):
        rows.append((i % 100, 0, MALLOC, 0, 160) if i < 100 else (i % 100, 0, FREE, 0, 0))
        if i >= 100:
            rows.append((i % 100, 0, MALLOC, 0, 160))
        rows += [(100, 0, MALLOC, 0, 12), (100, 0, FREE, 0, 0)]
        if i % 300 == 0:
            rows.append((101 + large, 0, MALLOC, 0, 5000))
            large += 1
    trace.write(path, np.array(rows, EVENT), trace.Origin(kind="recorded", generator="test"), slots=101 + large)
    return path


def test_an_empirical_trace_has_the_sizes_and_lifetimes_of_its_source(tmp_path: Path) -> None:
    path = source(tmp_path / "source.trace")
    given = pieces(fitted.Empirical(source=path, events=100_000))
    slots = fitted.Empirical(source=path, events=100_000).stream().slots
    assert events.check(given, slots, 1, 0) is None
    found, was = events.shape(given, slots), events.shape(trace.read(path).events, 200)
    births = found.sizes.sum()
    for size, share in ((12, 3000 / 6010), (160, 3000 / 6010), (5000, 10 / 6010)):
        count = found.sizes[events.bucket(size)]
        assert abs(count - births * share) <= 5 * (births * share) ** 0.5
    assert set(np.flatnonzero(found.lifetimes)) == set(np.flatnonzero(was.lifetimes))
    assert found.joint[events.bucket(5000), -1] == found.sizes[events.bucket(5000)]
    assert found.joint[events.bucket(12), 0] == found.sizes[events.bucket(12)]


def test_an_empirical_trace_of_a_long_source_is_as_long_as_asked(tmp_path: Path) -> None:
    of = generate.checked("lognormal", {"events": 300_000, "live": 90_000})
    generate.make("lognormal", of, tmp_path / "x.trace")
    given = pieces(fitted.Empirical(source=tmp_path / "x.trace", events=500_000))
    assert len(given) == 500_000
    assert events.check(given, 10**6, 1, 0) is None


def test_a_source_without_allocations_is_refused(tmp_path: Path) -> None:
    trace.write(tmp_path / "x.trace", np.empty(0, EVENT), trace.Origin(kind="recorded", generator="test"), slots=0)
    with pytest.raises(BadTrace, match="x.trace allocates nothing"):
        fitted.Empirical(source=tmp_path / "x.trace").stream()


# ---- both ------------------------------------------------------------------------------------------------------------


def test_the_bytes_are_the_same_everywhere(table: Path, tmp_path: Path) -> None:
    made = {
        "fleet": Fleet(distribution=table, heap=HEAP // 8, events=30_000),
        "empirical": fitted.Empirical(source=source(tmp_path / "source.trace"), events=20_000),
    }
    assert {name: hashlib.sha256(pieces(of).tobytes()).hexdigest() for name, of in made.items()} == SHA256
