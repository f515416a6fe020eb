"""A trace as a workload: of a trial, of a sweep, of a ledger's key."""

from pathlib import Path

import pytest

from hakmem import allocators, arms, campaign, generate, paths, run, trace, workload
from hakmem.build import build as compile_native
from hakmem.campaign import CampaignSpec
from hakmem.errors import BadParameter, BadTrace


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
    made = campaign.plan(spec)
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
        ("trace:{},ws=4", "its parameters are touch, rss_marks"),
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
