"""A trace as a workload: of a trial, of a sweep, of a ledger's key."""

from pathlib import Path

import pytest

from hakmem import campaign, paths, planning, run, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadParameter, BadTrace
from hakmem.study import CampaignSpec
from hakmem.traces import generate, trace


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "server.trace.zst"
    generate.make("server", generate.checked("server", {"events": 50_000, "threads": 2}), path)
    return path


def test_a_compressed_trace_runs_unpacked(packed: Path) -> None:
    work = workload.parse(f"trace:{packed},touch=page,rss_marks=3")
    assert work.text == f"trace:{packed},touch=page,rss_marks=3"
    assert workload.parse(work.text) == work
    header = trace.read(packed).header
    plain, sha256, *options = work.args
    assert Path(plain.removeprefix("--trace=")).is_relative_to(paths.build())
    assert sha256 == f"--sha256={header.sha256[:16]}"
    assert options == ["--touch=page", "--rss-marks=3", "--json"]
    assert work.threads == 2 and work.driver == "replay"
    made = compile_native()
    outcome = run.trial(made, arms.make(allocators.find("hakmem", made), {}), work)
    assert outcome.status == "ok" and outcome.line is not None
    assert [phase.name for phase in outcome.line.phases] == ["warm", "rss1", "rss2", "rss3", "done"]


def test_a_trace_of_the_checkout_is_found_from_anywhere(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert workload.parse(f"trace:{packed.name}").text == f"trace:{packed.name}"
    assert workload.parse(f"trace:../{packed.name}").driver == "replay"


def test_a_sweep_takes_traces_beside_drivers(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "runs", lambda: tmp_path)
    works = [f"trace:{packed}", "battle:n=2000"]
    spec = CampaignSpec.checked(
        {"study": "traces", "workloads": works, "lean": [1], "decommit": ["OFF"], "blocks": 1, "profile": "smoke"}
    )
    made = planning.plan(spec)
    campaign.run(made)
    rows = campaign.rows(made)
    assert set(rows["workload"]) == set(works) and (rows["status"] == "ok").all()


def test_another_content_under_the_same_name_is_another_trial(packed: Path) -> None:
    before = workload.parse(f"trace:{packed}").args
    generate.make("server", generate.checked("server", {"events": 50_000, "seed": 2}), packed)
    assert workload.parse(f"trace:{packed}").args != before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("trace", "names no file: trace:FILE"),
        ("trace:", "names no file: trace:FILE"),
        ("trace:{},touhc=page", r"unknown parameter 'touhc' \(did you mean touch\?\)"),
        ("trace:{},touch=all", "touch: Input should be 'none', 'first', 'page' or 'full'"),
        ("trace:{},ws=4", "its parameters are touch, repeat, rss_marks, latency"),
    ],
)
def test_bad_parameters_are_refused_in_words(packed: Path, given: str, said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        workload.parse(given.format(packed))


def test_a_trace_that_is_not_there_or_damaged_is_refused_before_anything_runs(packed: Path) -> None:
    with pytest.raises(BadTrace, match="cannot read the trace .*nothing.trace: No such file"):
        workload.parse("trace:nothing.trace")
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(BadTrace, match="truncated|damaged"):
        workload.parse(f"trace:{packed}")


# ---- traces made on the way ------------------------------------------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where generated traces go: a folder of the test's own."""
    monkeypatch.setattr(paths, "build", lambda: tmp_path / "build")
    return tmp_path / "build" / "traces"


def made_of(work: workload.Workload) -> trace.Header:
    return trace.read_header(Path(work.args[0].removeprefix("--trace=")))


def test_a_generator_is_a_workload(built: Path) -> None:
    text = "gen:zipf,events=20k,live=500,touch=page"
    work = workload.parse(text)
    header = made_of(work)
    assert (header.origin.generator, header.events, header.slots) == ("zipf", 20_000, 500)
    assert work.text == text and work.driver == "replay" and "--touch=page" in work.args
    [file] = built.iterdir()
    before = file.stat().st_mtime_ns
    assert workload.parse(text) == work and file.stat().st_mtime_ns == before  # made once
    assert workload.parse("gen:zipf,events=20k,live=501").args != work.args


def test_the_profile_sizes_a_generated_trace(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "GENERATED", {"smoke": 10_000, "quick": 20_000, "full": 30_000})
    assert workload.names(["gen:server,threads=2"]) == ["gen:server,threads=2"] and not built.exists()
    assert [made_of(workload.parse("gen:server", size)).events for size in ("smoke", "full")] == [10_000, 30_000]


def test_a_pattern_stands_for_all_fleets_and_traces(packed: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(packed.parent)
    for number, row in enumerate(("16, 100, 50", "100, 30, 500")):
        (packed.parent / f"program{number}.csv").write_text(row + "\n")
    found = workload.names(["fleet:*.csv,heap=64KiB,events=9k", "battle", "trace:s*.zst,touch=full", "battle:"])
    folder = packed.parent
    fleets = [f"fleet:{folder}/program{number}.csv,heap=64KiB,events=9k" for number in (0, 1)]
    assert found == [*fleets, "battle", f"trace:{packed},touch=full"]
    assert not built.exists() or all("fleet" not in file.name for file in built.iterdir())
    header = made_of(workload.parse(fleets[1]))
    assert header.origin.notes["distribution"] == "program1.csv" and header.events == 9000
    before = workload.parse(fleets[1])
    (folder / "program1.csv").write_text("100, 30, 400\n")
    assert workload.parse(fleets[1]).args != before.args  # another content, another trace


def test_a_trial_of_a_fleet(packed: Path, built: Path) -> None:
    (packed.parent / "a.csv").write_text("16, 100, 50\n100, 30, 500\n")
    made = compile_native()
    work = workload.parse(f"fleet:{packed.parent}/a.csv,heap=64KiB,events=30000,latency=1", "smoke")
    outcome = run.trial(made, arms.make(allocators.find("hakmem", made), {}), work)
    assert outcome.status == "ok" and outcome.line is not None and outcome.line.extra["alloc_p50_ns"] > 0
    assert outcome.line.ops == made_of(work).events - made_of(work).warm


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("gen", "names no generator: gen:NAME"),
        ("fleet:", "names no file: fleet:FILE"),
        ("gen:zip", r"unknown generator 'zip' \(did you mean zipf\?\)"),
        ("gen:zipf,wss=1", "unknown parameter 'wss'"),
        ("gen:zipf,live", "'live' is no name=value"),
        ("gen:zipf,live=1,live=2", "gives live twice"),
        ("gen:zipf,live=1000,events=1000", "events=1000 is too few: the first 1000 are its warm-up"),
        ("gen:zipf,touch=all", "touch: Input should be"),
        ("fleet:nothing.csv", "cannot read the distribution .*nothing.csv"),
        ("fleet:nothing*.csv", "no file is called nothing"),
        ("trace:nothing*", "no file is called nothing"),
    ],
)
def test_a_generated_workload_that_is_wrong_is_refused_in_words(built: Path, given: str, said: str) -> None:
    with pytest.raises((BadParameter, BadTrace), match=said):
        workload.parse(workload.names([given])[0])
    assert not built.exists()
