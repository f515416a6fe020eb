"""Generators: the same bytes everywhere, valid events, the population each one promises."""

import hashlib
import math
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hakmem.errors import BadTrace
from hakmem.traces import events, generate, tables, trace
from hakmem.traces.events import EVENT, EXIT, FREE, MALLOC, Events
from hakmem.traces.generate import GENERATORS

SMALL: dict[str, dict[str, Any]] = {
    "mixed": {"ws": 100, "cycles": 5000},
    "battle": {"n": 2000},
    "larson": {"events": 6000, "threads": 3, "blocks": 50, "rounds": 7},
    "ramp": {"n": 2000, "churn_ops": 1500},
    "phases": {"grow_mb": 1, "shrink_mb": 0, "work_ops": 500},
    "producer_consumer": {"events": 6000, "pairs": 2, "backlog": 256},
    "thread_churn": {"events": 6000, "threads": 3, "blocks": 100},
    "lognormal": {"events": 6000, "live": 500},
    "generational": {"events": 6000, "nursery": 300, "old": 100, "survive": 0.1},
    "zipf": {"events": 6000, "live": 900},
    "server": {"events": 6000, "requests": 8, "objects": 20, "leak": 0.3, "kept": 30, "threads": 2},
    "fragmenter": {"events": 9000, "limit": 2**16, "rounds": 5},
}

# SHA-256 of the events of each small trace: what a kernel makes may not change unnoticed, nor from machine to machine.
SHA256 = {
    "mixed": "a5201e46faf190beb6499523cbe0dcf87a0ee0817625eb30a84717df208cc332",
    "battle": "098e9b9c2db526686238912e23cd48cb5bee7a18d0b2fd793d5175857593ebe4",
    "larson": "f98d42af3beb7ad3eaabe72c399fdd6aefd157dd33ebc73c3bbdd80a52cd4863",
    "ramp": "1ff4afe23cf414ac4633185b72c4f2e54475a8918a7db72083a9b3e61419031c",
    "phases": "a4890d6ed6c8324b4f362fce5c07627a16e4b2de7b1654025b6e934e7ba4bde5",
    "producer_consumer": "8012e2f95490a558fda7cf367d272f1b3feb12cb716fdb8ffc62e8adb3ea153b",
    "thread_churn": "23f2f22ae57fe1b37f9abd4bb98e02a06c29de4a6117bf48a889746580176d2e",
    "lognormal": "5187cdef49af0fa29d5675356b6848355bc9cd1ece6d1d5231047d032aac1845",
    "generational": "8c082b808d713f96cbed43d35fa93251f1e899270a3f08cfbba13066c518fa3b",
    "zipf": "cd7bc44e7fc2b7aeb0f51e8a23f5c7f17636cf9c69520deaa472ab510a1276d8",
    "server": "2d65fcf955f9e8e83d883eaa71792c2f38ef231bb786af231ea2087f2a4d7e5a",
    "fragmenter": "2001062d58cecbb07a10ff95eb99a5e77594dcd6b02b09f1c5cbdffd2e434ccc",
}


def made(name: str, piece: int | None = None, **changes: Any) -> tuple[Events, generate.Stream]:
    stream = generate.checked(name, SMALL[name] | changes).stream()
    pieces = stream.pieces() if piece is None else by_piece(stream, piece)
    return np.concatenate([part.copy() for part in pieces]), stream


def by_piece(stream: generate.Stream, size: int) -> Iterator[Events]:
    buffer, left = np.zeros((size, 2), np.uint64), stream.events
    while left > 0 and (count := min(left, stream.fill(buffer))) > 0:
        left -= count
        yield buffer[:count].view(EVENT).reshape(-1)


def test_every_generator_is_tried() -> None:
    assert set(SMALL) == set(SHA256) == set(GENERATORS)


@pytest.mark.parametrize("name", SMALL)
def test_the_bytes_are_the_same_everywhere(name: str) -> None:
    assert hashlib.sha256(made(name)[0].tobytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", SMALL)
def test_events_make_sense_and_keep_the_promises_of_the_header(name: str) -> None:
    given, stream = made(name)
    assert events.check(given, stream.slots, stream.threads, len(stream.marks)) is None
    assert np.count_nonzero(given["op"] == events.MARK) == len(stream.marks)
    assert len(given) <= stream.events and 0 <= stream.warm <= len(given)
    assert np.array_equal(np.unique(given["thread"]), np.arange(stream.threads))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("piece", [257, 1000])
def test_pieces_do_not_change_the_trace(name: str, piece: int) -> None:
    assert (made(name)[0] == made(name, piece)[0]).all()


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"battle", "producer_consumer", "fragmenter"}))
def test_the_seed_matters(name: str) -> None:
    first, second = made(name)[0], made(name, seed=2)[0]
    assert len(first) != len(second) or (first != second).any()


def test_a_file_tells_how_it_was_made(tmp_path: Path) -> None:
    path, told = tmp_path / "x.trace.zst", []
    of = generate.checked("zipf", SMALL["zipf"] | {"seed": 5})
    generate.make("zipf", of, path, told=lambda done, total: told.append((done, total)), notes={"why": "test"})
    read = trace.read(path)
    assert read.header.origin.parameters["live"] == 900 and read.header.origin.notes == {"why": "test"}
    assert (read.header.seed, read.header.warm, read.header.events) == (5, 900, 6000)
    assert (read.events == made("zipf", seed=5)[0]).all()
    assert told[-1] == (6000, 6000)
    again = generate.checked(read.header.origin.generator, read.header.origin.parameters)
    assert again == of


@pytest.mark.parametrize("name", ["x.trace", "x.trace.zst"])
def test_a_trace_of_any_length_takes_the_memory_of_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(generate, "PIECE", 1024)

    def peak(cycles: int) -> int:
        tracemalloc.start()
        generate.make("mixed", generate.checked("mixed", {"cycles": cycles, "warm": 0}), tmp_path / name)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(600_000)
    assert peak(2_000_000) < peak(600_000) + 1_000_000  # of 32 MB and 10 MB


def test_the_version_of_a_generator_stands_in_the_file(tmp_path: Path) -> None:
    of = generate.checked("zipf", SMALL["zipf"])
    generate.make("zipf", of, tmp_path / "x.trace")
    assert trace.read(tmp_path / "x.trace").header.origin.version == of.version == 1


def test_a_long_trace_comes_in_pieces() -> None:
    stream = generate.checked("mixed", {"cycles": 10**11}).stream()
    first = next(stream.pieces())
    assert stream.events == 11 * 10**10 and len(first) == generate.PIECE


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("mixt", {}, r"unknown generator 'mixt' \(did you mean mixed\?\); there are mixed, battle"),
        ("mixed", {"wss": 1}, r"generator mixed: unknown parameter 'wss' \(did you mean ws\?\); there are seed, ws"),
        ("mixed", {"ws": 0}, "generator mixed: ws=0: Input should be greater than or equal to 1"),
        (
            "lognormal",
            {"sigma": 0.001},
            "generator lognormal: sigma=0.001: Input should be greater than or equal to 0.01",
        ),
        ("zipf", {"exponent": "x"}, "generator zipf: exponent='x': Input should be a valid number"),
    ],
)
def test_bad_parameters_are_refused_in_words(name: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(BadTrace, match=said):
        generate.checked(name, parameters)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("phases", {"grow_mb": 5, "shrink_mb": 5}, "shrink_mb=5 is not below grow_mb=5"),
        ("larson", {"min": 9, "max": 8}, "min=9 is above max=8"),
        ("producer_consumer", {"backlog": 100}, "backlog=100 is no multiple of 64"),
        ("lognormal", {"median": 9, "max": 8}, "median=9 is above max=8"),
        ("larson", {"events": 20_000, "warm": 20_000}, "events=20000 is too few: the first 20000 are its warm-up"),
        ("server", {"requests": 10**6, "objects": 10**4}, "at most 2147483648 slots, not 20000010000"),
        ("fragmenter", {"limit": 2**36}, "at most 2147483648 slots, not 4294967297"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(name: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(BadTrace, match=said):
        generate.checked(name, parameters).stream()


# ---- the populations -------------------------------------------------------------------------------------------------


def test_producers_allocate_and_consumers_free() -> None:
    given, _ = made("producer_consumer")
    assert (given["thread"][given["op"] == MALLOC] % 2 == 0).all()
    assert (given["thread"][given["op"] == FREE] % 2 == 1).all()
    assert events.shape(given, 512).peak_blocks == 512


def test_threads_of_the_churn_free_what_others_left() -> None:
    given, stream = made("thread_churn")
    found = events.shape(given, stream.slots)
    assert found.cross_frees == found.frees > 0
    assert found.peak_blocks == 300
    assert np.count_nonzero(given["op"] == EXIT) == 3 * (np.count_nonzero(given["op"] == MALLOC) // 300)


def test_larson_hands_its_blocks_over() -> None:
    given, stream = made("larson")
    found = events.shape(given, stream.slots)
    assert 0 < found.cross_frees < found.frees
    ends = np.flatnonzero(given["op"] == EXIT)
    replacements = np.count_nonzero(given["op"][: ends[0]] == FREE)
    assert replacements == 3 * 50 * 7


def test_lifetimes_of_lognormal_are_exponential() -> None:
    given, stream = made("lognormal", events=400_000, live=1000)
    found = events.shape(given, stream.slots)
    assert found.peak_blocks == 1000
    lows, deaths = events.bucket_lows(), found.lifetimes
    for lifetime in (100, 500, 1000, 3000):
        older = deaths[lows[:-1] >= lifetime].sum() / deaths.sum()
        edge = lows[:-1][lows[:-1] >= lifetime][0]
        # Blocks born late are cut off by the end: the last 1 % of the deaths are left out of the claim.
        assert older == pytest.approx(math.exp(-edge / 1000), abs=0.01)


def test_sizes_of_lognormal_have_the_median_asked_for() -> None:
    given, _ = made("lognormal", events=200_000, median=100, sigma=1.0)
    sizes = given["size"][given["op"] == MALLOC].astype(float)
    assert np.median(sizes) == pytest.approx(100, rel=0.02)
    assert np.log(sizes).std() == pytest.approx(1.0, rel=0.02)


def test_zipf_prefers_low_slots_in_proportion() -> None:
    given, _ = made("zipf", events=400_000, live=900, exponent=1.0)
    hits = np.bincount(given["slot"][given["op"] == FREE], minlength=900)
    expected = (1 / np.arange(1, 901)) / np.sum(1 / np.arange(1, 901)) * hits.sum()
    for low, high in ((0, 1), (1, 2), (9, 20), (99, 256), (256, 600), (600, 900)):
        assert hits[low:high].sum() == pytest.approx(
            expected[low:high].sum(), abs=5 * math.sqrt(expected[low:high].sum())
        )


def test_the_old_generation_is_fed_by_survivors() -> None:
    given, stream = made("generational", events=300_000, nursery=1000, old=500, survive=0.1)
    found = events.shape(given, stream.slots)
    assert found.peak_blocks <= 1500
    dead_young = found.lifetimes[events.bucket_lows()[:-1] < 1000].sum()
    assert dead_young / found.lifetimes.sum() == pytest.approx(0.9, abs=0.02)


def test_leaks_of_the_server_are_few_and_bounded() -> None:
    given, stream = made("server", events=300_000)
    found = events.shape(given, stream.slots)
    assert found.peak_blocks <= 8 * 40 + 30
    assert 0 < found.cross_frees < 0.05 * found.frees


def test_the_fragmenter_stays_within_its_limit_and_pins_pages() -> None:
    given, stream = made("fragmenter", events=600_000, limit=2**20, stride=4096, rounds=6)
    found = events.shape(given, stream.slots, points=600_000)
    assert 0.9 * 2**20 < found.peak_bytes <= 2**20
    assert (found.live_bytes == 0).any()  # a cycle ends with an empty heap
    sizes = set(np.unique(given["size"][given["op"] == MALLOC]).tolist())
    assert sizes == {16 << i for i in range(6)}


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("median", [1, 3, 100, 2**24])
def test_the_narrowest_lognormal_is_drawn_around_its_median(median: int) -> None:
    made_table = tables.lognormal(median, 0.01, 1, 2**30)
    assert (abs(made_table.low / median - 1) <= 0.2).all()


def test_a_table_draws_in_proportion_to_its_weights() -> None:
    made_table = tables.table([1, 0, 6, 3], [10, 20, 30, 40], [1, 1, 1, 1])
    share = np.zeros(4)
    for cell in range(4):
        kept = float(made_table.threshold[cell]) / 2**32
        share[cell] += kept / 4
        share[made_table.alias[cell]] += (1 - kept) / 4
    assert share == pytest.approx([0.1, 0.0, 0.6, 0.3], abs=1e-9)


def test_tables_cover_what_they_promise() -> None:
    for made_table, low, high in (
        (tables.even(8, 1000), 8, 1000),
        (tables.zipf(100_000, 1.2), 0, 99_999),
        (tables.lognormal(64, 1.0, 16, 4096), 16, 4096),
    ):
        order = np.argsort(made_table.low)
        ends = made_table.low[order] + made_table.width[order]
        assert made_table.low.min() == low and ends[-1] == high + 1
        assert (ends[:-1] == made_table.low[order][1:]).all()
