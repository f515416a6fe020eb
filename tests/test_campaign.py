import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from test_planning import ARMS, plan

from hakmem import campaign, epochs, progress, sample, soak, store, verdict
from hakmem.errors import LedgerError
from hakmem.planning import Plan
from hakmem.run import measuring_cpu
from hakmem.verdict import Verdict


def test_a_campaign_measures_every_arm_in_every_block(tmp_path: Path) -> None:
    made = plan(tmp_path)
    done = campaign.run(made, quiet=True)
    rows = campaign.rows(made)
    assert (done.measured, done.reused, done.stopped) == (len(rows), 0, None)
    assert set(rows["status"]) == {"ok"}
    for (work, block), cell in rows.groupby(["workload", "block"]):
        order = made.order(next(one for one in made.workloads if one.text == work), int(block))
        assert list(cell.sort_values("position")["arm"]) == [arm.label for arm in order]
        assert list(cell["order"]) == list(range(cell["order"].min(), cell["order"].min() + ARMS))
    assert rows.loc[rows["allocator"] == "system", "linkage"].unique().tolist() == ["none"]
    assert rows.loc[rows["arm"] == "hakmem LEAN OFF", "gates"].iloc[0] == {
        "HAKMEM_SS_MEM_LEAN": "1",
        "HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF",
    }


def test_provenance_stands_beside_the_rows(tmp_path: Path) -> None:
    made = plan(tmp_path, blocks=1)
    campaign.run(made, quiet=True)
    kinds = [json.loads(line)["type"] for line in made.ledger.read_text().splitlines()]
    assert kinds[:2] == ["provenance", "plan"]
    known = store.provenance(made.ledger)
    assert set(store.load(made.ledger)["provenance"]) == set(known)
    (facts,) = [one.facts for one in known.values()]
    assert facts["build"] == made.build.build_id
    assert facts["host"] == "here"
    assert {"kernel", "thp", "aslr", "git_revision", "lock_hash"} <= facts.keys()


def test_what_the_ledger_holds_is_not_measured_again(tmp_path: Path) -> None:
    first = campaign.run(plan(tmp_path), quiet=True)
    size = (tmp_path / "tiny.jsonl").stat().st_size
    again = plan(tmp_path)
    assert (again.to_measure, again.expected_minutes) == (0, 0)
    # A block spoiled on a busy machine may still be owed its repetition; nothing else is.
    done = campaign.run(again, quiet=True)
    assert (done.measured, done.reused) == (0, first.measured)
    assert (tmp_path / "tiny.jsonl").stat().st_size == size
    more = plan(tmp_path, blocks=5)
    assert more.to_measure <= ARMS * 2
    campaign.run(more, quiet=True)
    rows = campaign.rows(more)
    assert not rows["trial_key"].duplicated().any()
    assert rows.loc[rows["block"] < 5].shape[0] == ARMS * 2 * 5


def test_rows_of_another_size_are_left_out(tmp_path: Path) -> None:
    campaign.run(plan(tmp_path, blocks=1), quiet=True)
    other = plan(tmp_path, blocks=1, workloads=["mixed:ws=51,cycles=20000"])
    assert campaign.rows(other).empty
    assert other.to_measure == ARMS


def test_the_budget_ends_a_study_between_blocks_and_counts_what_was_spent(tmp_path: Path) -> None:
    made = plan(tmp_path, budget_minutes=0.0001)
    done = campaign.run(made, quiet=True)
    assert done.measured == ARMS * 2  # the first block of each workload is always completed
    assert done.stopped is not None and "budget" in done.stopped
    assert campaign.run(made, quiet=True).measured == 0


class Settles:
    """Judges really, but says when a verdict counts as decided; remembers what it may spend."""

    def __init__(self, workload: str, at: int) -> None:
        self.workload, self.at, self.spent = workload, at, {}

    def __call__(self, rows: pd.DataFrame, alpha: float) -> list[Verdict]:
        blocks = int(rows["block"].nunique())
        self.spent[blocks] = alpha
        decided = rows["workload"].iloc[0] != self.workload or blocks >= self.at
        change = {"word": "GO"} if decided else {"word": "INCONCLUSIVE", "blocks_needed": 1}
        return [found.model_copy(update=change) for found in verdict.lean(rows, 10, alpha)]


def test_blocks_are_added_until_each_verdict_is_decided(tmp_path: Path) -> None:
    made = plan(tmp_path, blocks=2, until_decided=True, decommit=["OFF"], target_mb=[10])
    assert made.looks == (2, 3, 4, 6, 8)
    judge = Settles("mixed:ws=50,cycles=20000", at=4)
    done = campaign.run(made, quiet=True, judge=judge)
    rows = campaign.rows(made)
    planned = rows[rows["block"] < 8].groupby("workload")["block"].nunique()
    assert dict(planned) == {"mixed:ws=50,cycles=20000": 4, "ramp:n=2000,churn_ops=100": 2}
    assert done.undecided == ()
    assert judge.spent[2] < judge.spent[3] < judge.spent[4] < 0.05
    assert campaign.run(made, quiet=True, judge=judge).measured == 0  # what is decided stays so
    never = campaign.run(made, quiet=True, judge=Settles("mixed:ws=50,cycles=20000", at=99))
    assert never.undecided == ("mixed:ws=50,cycles=20000: 1 arm(s) undecided after 8 blocks",)


def test_looking_often_errs_no_more_often_than_looking_once(tmp_path: Path) -> None:
    """A/A data, 3000 studies: the share in which any look calls a difference is at most alpha."""
    made = plan(tmp_path, blocks=10, until_decided=True)
    draws = np.random.default_rng(5).standard_normal((3000, made.looks[-1]))
    called = np.zeros(3000, dtype=bool)
    naive = called.copy()
    for n in made.looks:
        p = ttest_1samp(draws[:, :n], 0, axis=1).pvalue
        called |= p < campaign.alpha(made.looks, n)
        naive |= p < campaign.ALPHA
    assert called.mean() <= campaign.ALPHA + 2 * (0.05 * 0.95 / 3000) ** 0.5
    assert naive.mean() > 0.09  # what the spending is for
    assert campaign.alpha(plan(tmp_path).looks, 4) == campaign.ALPHA


def test_a_long_trial_has_a_series(tmp_path: Path) -> None:
    made = plan(tmp_path, blocks=1, workloads=["idle:burst_mb=5,idle_ms=300"], lean=[0], allocators=["system"])
    campaign.run(made, quiet=True)
    rows = campaign.rows(made)
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("needs a second core: nothing is sampled while every core is busy")
    series = pd.read_parquet(tmp_path / rows["series"].iloc[0])
    assert series["rss_kb"].max() > 1000
    assert series["t_s"].iloc[-1] < rows["wall_s"].iloc[0] + 1


def test_a_failing_arm_is_rows_not_an_error(tmp_path: Path) -> None:
    """An allocator that runs out of memory: its trials are failures, those of the others are not."""
    source = tmp_path / "few.c"
    source.write_text(
        "#include <stddef.h>\n#include <errno.h>\nstatic char arena[1 << 20] __attribute__((aligned(16)));\n"
        "static size_t used;\nvoid *malloc(size_t n) { size_t at = used; n = (n + 15) & ~15ul;\n"
        "  if (at + n > sizeof arena) { errno = ENOMEM; return 0; } used += n; return arena + at; }\n"
        "void free(void *p) { (void)p; }\nvoid *calloc(size_t a, size_t b) { return malloc(a * b); }\n"
        "void *realloc(void *p, size_t n) { (void)p; return malloc(n); }\n"
    )
    library = tmp_path / "libfew.so"
    command = ["cc", "-O2", "-fno-builtin", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    few = f"preload:{library}"
    made = plan(tmp_path, allocators=["system", few], workloads=["ramp:n=50000,churn_ops=10"], blocks=2)
    campaign.run(made, quiet=True)
    rows = campaign.rows(made)
    broken = rows[rows["arm"] == few]
    assert set(broken["status"]) == {"failed"}
    assert broken["ops"].isna().all() and broken["mops"].isna().all()
    assert broken["stderr_tail"].str.contains("out of memory").all()
    assert set(rows.loc[rows["arm"] == "system", "status"]) == {"ok"}


def test_spoiled_blocks_are_repeated_once_and_both_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "progress.jsonl"
    monkeypatch.setenv(progress.FILE, str(told))
    cpu = measuring_cpu()
    if cpu is None:
        pytest.skip("needs two cores: trials are pinned to one of several")
    spin = f"import os; os.sched_setaffinity(0, {{{cpu}}}); print('at work', flush=True)\nwhile True: pass"
    rivals = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for rival in rivals:
            assert rival.stdout is not None and rival.stdout.readline()
        made = plan(tmp_path, workloads=["mixed:cycles=60000000"], allocators=["system"], lean=[0], blocks=1)
        done = campaign.run(made)
    finally:
        for rival in rivals:
            rival.kill()
            rival.communicate()
    rows = campaign.rows(made)
    first = rows[rows["block"] == 0]
    assert any("switches" in reason for reasons in first["spoiled"] for reason in reasons)
    assert sorted(rows["block"].unique()) == [0, 1]
    assert done.spoiled_blocks >= 1
    last = json.loads(told.read_text().splitlines()[-1])
    assert (last["total"], last["repeats"]) == (len(rows), (rows["block"] == 1).sum())
    assert campaign.run(made, quiet=True).measured == 0  # once, not again and again


def test_two_campaigns_do_not_write_one_ledger(tmp_path: Path) -> None:
    made = plan(tmp_path)
    with store.Ledger(made.ledger), pytest.raises(LedgerError, match="another process"):
        campaign.run(made, quiet=True)


def measure(made: Plan, steps: Path) -> None:
    os.environ["HAKMEM_PROGRESS"] = str(steps)
    campaign.run(made)


def start(made: Plan, steps: Path) -> BaseProcess:
    """Run a campaign in a process of its own; `steps` gets a line for every trial that it calls done."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["hakmem.campaign"])
    process = server.Process(target=measure, args=(made, steps))
    process.start()
    return process


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_a_step(process: BaseProcess, steps: Path, count: int) -> None:
    while lines(steps) < count and process.is_alive():
        time.sleep(0.005)


def test_killed_at_any_moment_it_loses_at_most_the_trial_in_flight(tmp_path: Path) -> None:
    made = plan(tmp_path, workloads=["mixed:ws=50,cycles=500000"], blocks=16)
    steps = tmp_path / "steps.jsonl"
    moments = random.Random(7)
    had = killed = 0
    while killed < 20 and had < made.trials:
        before = lines(steps)
        process = start(made, steps)
        wait_for_a_step(process, steps, before + 1)
        time.sleep(moments.uniform(0, 0.05))
        killed += process.is_alive()
        process.kill()
        process.join()
        told = lines(steps) - before
        rows = store.load(made.ledger)
        assert told <= len(rows) - had <= told + 1  # all that was called done, and perhaps the one just being told
        had = len(rows)
        assert not rows["trial_key"].duplicated().any()
    assert killed >= 15
    campaign.run(made, quiet=True)
    rows = campaign.rows(made)
    planned = {key for block in range(16) for key in made.keys(made.workloads[0], block)}
    assert planned <= set(rows["trial_key"])
    assert not rows["trial_key"].duplicated().any()
    assert rows["order"].is_monotonic_increasing and not rows["order"].duplicated().any()


def fill_the_disk(made: Plan, more: int) -> None:
    """Measure where no file may grow beyond the ledger's size and a little more."""
    limit = made.ledger.stat().st_size + more
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        campaign.run(made, quiet=True)
    except LedgerError as error:
        raise SystemExit(3 if "cannot write" in str(error) else 4) from None


def test_a_full_disk_ends_it_in_words_and_costs_no_row(tmp_path: Path) -> None:
    made = plan(tmp_path, workloads=["mixed:ws=50,cycles=20000"], blocks=5)
    campaign.run(plan(tmp_path, workloads=["mixed:ws=50,cycles=20000"], blocks=1), quiet=True)
    before = store.load(made.ledger)
    facts, planned, first, *_ = made.ledger.read_bytes().splitlines()
    room = len(facts) + len(planned) + 5 * len(first) // 2
    process = multiprocessing.get_context("forkserver").Process(target=fill_the_disk, args=(made, room))
    process.start()
    process.join()
    assert process.exitcode == 3
    rows = store.load(made.ledger)
    assert 1 <= len(rows) - len(before) <= 3 and rows.attrs["torn_lines"] <= 1
    campaign.run(made, quiet=True)  # there is room again
    rows = campaign.rows(made)
    assert set(rows["block"]) >= set(range(5)) and not rows["trial_key"].duplicated().any()


def test_an_interrupt_leaves_a_ledger_that_goes_on(tmp_path: Path) -> None:
    made = plan(tmp_path, blocks=40)
    steps = tmp_path / "steps.jsonl"
    process = start(made, steps)
    wait_for_a_step(process, steps, 2)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 1  # of a KeyboardInterrupt
    rows = store.load(made.ledger)
    assert rows.attrs["torn_lines"] == 0
    assert 2 <= len(rows) < made.trials
    assert plan(tmp_path, blocks=40).to_measure == made.trials - len(rows)


def test_a_soak_in_a_study_has_its_epochs_as_series(tmp_path: Path) -> None:
    work = "soak:ws=50,seconds=0.5,epoch_seconds=0.05"
    made = plan(tmp_path, blocks=1, workloads=[work], lean=[0], allocators=["hakmem"])
    seen: list[tuple[str, int]] = []
    campaign.run(made, quiet=True, watch=lambda arm, told: seen.append((arm.label, len(told))))
    rows = campaign.rows(made)
    assert len(rows) >= 2 and set(rows["status"]) == {"ok"} and rows["series"].notna().all()
    if sample.use(1):  # watched where a core is free: more and more epochs of each soak
        assert len(seen) > len(rows) and {arm for arm, _ in seen} == {"hakmem"}
        assert sum(later <= before for (_, before), (_, later) in pairwise(seen)) == len(rows) - 1
    for row in rows.to_dict("records"):
        told = pd.read_parquet(tmp_path / row["series"])
        # An epoch in which a busy machine never ran the program has no line; every operation stands in one.
        assert list(told.columns) == epochs.COLUMNS
        assert told["epoch"].is_unique and 1 < len(told) <= row["extra"]["epochs"]
        assert told["ops"].sum() == row["ops"]
        found = soak.analyse_row(row, told)
        assert (found.arm, found.status, found.epochs) == ("hakmem", "ok", len(told))
        assert found.syscalls_per_op == row["syscalls_per_op"] and found.p1 <= found.p50
