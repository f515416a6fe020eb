"""Targets held against known figures: words, change points, what was not measured."""

from pathlib import Path

import pandas as pd
import pytest
from ledgers import rows, study, trial

from hakmem import store
from hakmem.studies import scorecard

PEER = (
    ("mimalloc", "baseline2", 1.0, 1.0, {}),
    ("mimalloc", "baseline", 1.0, 1.0, {}),
    ("hakmem_minimal", "arm", 0.8, 1.0, {}),
)

ROLES = ("baseline", "baseline2")


def ledgers(**changes: object) -> dict[str, pd.DataFrame]:
    sweep, peers = rows(study(**({"blocks": 6} | changes))), rows(study(blocks=6, arms=PEER))  # type: ignore[arg-type]
    return {name: table[table["workload"] == "mixed:ws=400"] for name, table in (("sweep", sweep), ("rebase", peers))}


def test_every_target_has_its_word() -> None:
    found = scorecard.latest(scorecard.card(ledgers())).set_index("target")
    assert found.loc["peak RSS, speed first", "verdict"] == "GO"  # 33 MB of 35
    assert found.loc["peak RSS, Lean", "estimate"] == pytest.approx(8.25, rel=0.01)
    assert found.loc["Lean's throughput, of speed first's", "estimate"] == pytest.approx(96, abs=1)
    assert found.loc["growth over the run, speed first", "verdict"] == "GO"
    assert found.loc["FAST's throughput, of mimalloc's: 75 %", "verdict"] == "GO"
    assert found.loc["FAST's throughput, of mimalloc's: 100 %", "verdict"] == "NEUTRAL"  # an aim
    assert found.loc["FAST's throughput, of mimalloc's: 100 %", "share"] == pytest.approx(1.25, rel=0.02)
    assert scorecard.judge(scorecard.card(ledgers()))[0] == "GO"


def test_a_missed_target_and_an_aim_differ() -> None:
    word, sentences = scorecard.judge(scorecard.card(ledgers(syscalls_per_op=1e-3)))
    assert word == "NO-GO" and sentences[1] == "Missed: system calls, speed first; system calls, Lean."


def test_a_change_between_builds_is_marked() -> None:
    old = [
        trial("hakmem", role, "mixed:ws=400", block, 110, 20 + 0.01 * block, build="b0", order=block)
        for block in range(5)
        for role in ("baseline", "baseline2")
    ]
    both = pd.concat([rows(old), ledgers()["sweep"]], ignore_index=True)
    table = scorecard.card({"sweep": both, "rebase": rows([])})
    peak = table[table["target"] == "peak RSS, speed first"]
    assert list(peak["build"]) == ["b0", "b1"] and list(peak["change"]) == [False, True]
    assert "Changed since the build before: peak RSS, speed first." in scorecard.judge(table)[1]
    assert "peak RSS, speed first" in scorecard.chart(table).panels[0].alt


def test_the_trend_is_drawn_over_builds() -> None:
    old = [trial("hakmem", r, "mixed:ws=400", b, 110, 20 + 0.01 * b, build="b0") for b in range(5) for r in ROLES]
    table = scorecard.card({"sweep": pd.concat([rows(old), ledgers()["sweep"]], ignore_index=True)})
    drawn = scorecard.trend(table)
    assert "peak RSS, speed first: 20 to 33, 1 change point. b0 20, b1 33 MB." in [one.alt for one in drawn.panels]
    assert len(drawn.panels) == 3 and "a trend needs two" in scorecard.trend(scorecard.card(ledgers())).html()


def test_intervals_are_shares_of_the_limit_too_and_never_below_nothing() -> None:
    table = scorecard.latest(scorecard.card(ledgers(blocks=2, cv=0.5))).set_index("target")
    known = table.dropna(subset=["estimate"])
    assert (known["low"] >= 0).all() and (known["low"] <= known["estimate"]).all()
    assert known["share"].between(known["share_low"], known["share_high"]).all()
    pace = table.loc["Lean's throughput, of speed first's"]
    assert pace["share_low"] == pytest.approx(90 / pace["high"]) and pace["share_high"] == pytest.approx(
        90 / pace["low"]
    )


def test_published_figures_stand_beside() -> None:
    shown = scorecard.newest(scorecard.card(ledgers())).set_index("target")["today / published"]
    assert shown["peak RSS, speed first"] == pytest.approx(33 / 32.88, rel=0.01) and pd.isna(shown["peak RSS, Lean"])
    found = scorecard.latest(scorecard.card(ledgers())).set_index("target")["published"]
    assert found["peak RSS, speed first"] == 32.88 and found["FAST's throughput, of mimalloc's: 50 %"] == 49.13
    assert pd.isna(found["peak RSS, Lean"])


@pytest.mark.parametrize(("grows_mb", "word"), [(0.0, "GO"), (0.05, "GO"), (3.0, "NO-GO")])
def test_soaks_tell_of_drift(grows_mb: float, word: str, tmp_path: Path) -> None:
    epochs = pd.DataFrame({"t_s": range(20), "rss_mb": [10 + grows_mb * t / 19 for t in range(20)], "lazyfree_mb": 0.0})
    (tmp_path / "soaks.series").mkdir()
    with store.Ledger(tmp_path / "soaks.jsonl") as ledger:
        for block in range(3):
            series = f"soaks.series/{block}.parquet"
            epochs.assign(rss_mb=epochs["rss_mb"] + 0.01 * block).to_parquet(tmp_path / series)
            ledger.append(trial("hakmem", "baseline", "soak:ws=400,seconds=60", block, 100, 10, series=series))
    found = scorecard.load({"soak": tmp_path / "soaks.jsonl"})
    drift = scorecard.latest(scorecard.card(found)).set_index("target").loc["drift over soaks, SAFE and BALANCED"]
    assert drift["verdict"] == word and drift["blocks"] == 3
    assert drift["estimate"] == pytest.approx(0 if word == "GO" else 23.5, abs=1.5)


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    table = scorecard.card(scorecard.load({"sweep": tmp_path / "no.jsonl", "rebase": tmp_path / "no.jsonl"}))
    assert set(table["verdict"]) == {"NOT-APPLICABLE"} and len(table) == len(scorecard.TARGETS)
    assert scorecard.judge(table)[0] == "INCONCLUSIVE" and scorecard.chart(table).panels == ()


def test_rows_come_from_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    with store.Ledger(path) as ledger:
        for one in study(blocks=3):
            ledger.append(one)
    found = scorecard.load({"sweep": path, "rebase": tmp_path / "no.jsonl"})
    assert set(found["sweep"]["workload"]) == {"mixed:ws=400"} and len(found["sweep"]) == 30 and found["rebase"].empty
