import ast
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import trial as make_trial
from pydantic import ValidationError

from hakmem import run, store, workload
from hakmem.builds import allocators, arms
from hakmem.builds.build import build as compile_native
from hakmem.errors import LedgerError
from hakmem.store import Ledger, Plan, Provenance, Trial, load


def row(key: str, **changes: object) -> Trial:
    return make_trial("hakmem", "baseline", "mixed:ws=400", 0, 100, 2, trial_key=key, **changes)


def ledger_of(path: Path, count: int, **changes: object) -> Path:
    with Ledger(path) as ledger:
        for number in range(count):
            ledger.append(row(f"k{number}", order=number, **changes))
    return path


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A disk that is full: the kernel refuses to let a file grow beyond `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_appended_is_what_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "study.jsonl"
    now = datetime.now(UTC)
    with Ledger(path) as ledger:
        ledger.append(Provenance(id="p1", host="h", started=now, facts={"cpu": "unknown", "nested": {"a": [1]}}))
        ledger.append(
            Plan(
                study="s",
                started=now,
                seed=1,
                blocks=2,
                arms=("a",),
                workloads=("ramp",),
                spec={"blocks": 2},
                cluster=False,
            )
        )
        ledger.append(row("k1", syscalls={"mmap": 3}))
        ledger.append(row("k2", status="timeout", signal=9, exit_status=None, ops=1, peak_rss_kb=None))
    types = [json.loads(line)["type"] for line in path.read_text().splitlines()]
    assert types == ["provenance", "plan", "trial", "trial"]
    assert {json.loads(line)["schema"] for line in path.read_text().splitlines()} == {store.SCHEMA}
    table = load(path)
    assert list(table["trial_key"]) == ["k1", "k2"]
    assert table["syscalls"][0] == {"mmap": 3}
    assert table["peak_rss_mb"][0] == pytest.approx(2)
    assert table["mops"][0] == pytest.approx(100)
    assert table["end_rss_less_lazyfree_mb"][0] == pytest.approx(2)
    assert table["status"][1] == "timeout" and table["peak_rss_mb"].isna()[1]
    assert table.attrs["torn_lines"] == 0
    assert store.provenance(path)["p1"].facts["nested"] == {"a": [1]}


def test_every_documented_column_is_there_even_in_an_empty_ledger(tmp_path: Path) -> None:
    path = ledger_of(tmp_path / "empty.jsonl", 0)
    table = load(path)
    documented = {
        "schema",
        "study",
        "trial_key",
        "cohort",
        "provenance",
        "host",
        "block",
        "position",
        "order",
        "arm",
        "role",
        "allocator",
        "version",
        "linkage",
        "gates",
        "effective_gates",
        "workload",
        "argv",
        "status",
        "exit_status",
        "signal",
        "stderr_tail",
        "spoiled",
        "started",
        "wall_s",
        "user_s",
        "sys_s",
        "ops",
        "seconds",
        "ops_per_s",
        "peak_rss_kb",
        "start_rss_kb",
        "end_rss_kb",
        "end_lazyfree_kb",
        "phases",
        "minflt",
        "majflt",
        "nvcsw",
        "nivcsw",
        "steal_s",
        "syscalls",
        "syscalls_per_op",
        "counters",
        "series",
        "peak_rss_mb",
        "end_rss_mb",
        "end_rss_less_lazyfree_mb",
        "mops",
    }
    assert table.empty
    assert documented <= set(table.columns)
    assert (table.dtypes[["ops", "peak_rss_kb", "mops"]] == "float64").all()


def test_rows_are_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        row("k", unknown_field=1)
    with pytest.raises(ValidationError):
        row("k", status="fine")
    with pytest.raises(ValidationError):
        row("k", wall_s=float("nan"))
    with pytest.raises(ValidationError):
        row("k").trial_key = "other"  # type: ignore[misc]


@given(cut=st.integers(min_value=0))
def test_a_cut_anywhere_loses_at_most_the_last_trial(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = ledger_of(tmp_path_factory.mktemp("cut") / "study.jsonl", 3)
    whole = path.read_bytes()
    kept = whole[: cut % (len(whole) + 1)]
    path.write_bytes(kept)
    survivors = [f"k{number}" for number in range(kept.count(b"\n"))]
    fragment = kept.rpartition(b"\n")[2]
    if fragment and len(fragment) == len(whole.split(b"\n")[0]):  # all but the newline: a whole record
        survivors.append(f"k{len(survivors)}")
        fragment = b""
    table = load(path)
    assert list(table["trial_key"]) == survivors
    assert table.attrs["torn_lines"] == (1 if fragment else 0)
    with Ledger(path) as ledger:
        assert ledger.keys == set(survivors)
        ledger.append(row("after"))
    assert path.read_bytes().startswith(kept)  # never edited
    assert list(load(path)["trial_key"]) == [*survivors, "after"]


def test_one_writer_at_a_time_and_any_reader(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    with Ledger(path) as ledger:
        ledger.append(row("k0"))
        with pytest.raises(LedgerError, match="another process is writing"):
            Ledger(path)
        assert len(load(path)) == 1
    with Ledger(path) as ledger:
        assert ledger.keys == {"k0"}


def test_a_full_disk_is_an_error_and_the_ledger_goes_on(tmp_path: Path) -> None:
    path = ledger_of(tmp_path / "study.jsonl", 2)
    with Ledger(path) as ledger:
        with no_file_larger_than(path.stat().st_size + 100), pytest.raises(LedgerError, match="too large|No space"):
            ledger.append(row("lost"))
        assert "lost" not in ledger.keys
        table = load(path)
        assert list(table["trial_key"]) == ["k0", "k1"]
        assert table.attrs["torn_lines"] == 1
        ledger.append(row("k2"))
    assert list(load(path)["trial_key"]) == ["k0", "k1", "k2"]


def test_a_ledger_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot open"):
        Ledger(tmp_path)
    with pytest.raises(LedgerError, match=r"no ledger .*none\.jsonl"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(LedgerError, match="cannot read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"schema":4,"type":"trial"}', "line 2: schema 4, but this hakmem reads schema 1 to 3; use the hakmem that"),
        ('{"schema":[],"type":"trial"}', r"line 2: schema \[\]"),
        ('{"type":"trial"}', "line 2: schema None"),
        ('{"schema":3,"type":"note"}', "line 2: .*'provenance', 'plan', 'trial'"),
        ('{"schema":1,"type":"plan","study":"s"}', r"line 2: plan\.started: Field required"),
    ],
)
def test_a_record_that_cannot_be_understood_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = ledger_of(tmp_path / "study.jsonl", 1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(LedgerError, match=said):
        load(path)
    with pytest.raises(LedgerError, match=said):
        Ledger(path)
    os.rename(path, path.with_suffix(".moved"))  # the failed open left no lock behind
    with Ledger(path):
        pass


def test_hosts_are_not_pooled_unasked(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    with Ledger(path) as ledger:
        ledger.append(row("k0", host="one"))
        ledger.append(row("k1", host="two"))
    with pytest.raises(LedgerError, match="2 hosts .one, two."):
        load(path)
    assert list(load(path, host="two")["trial_key"]) == ["k1"]
    assert len(load(path, pool_hosts=True)) == 2


def test_newest_keeps_what_belongs_together(tmp_path: Path) -> None:
    path = tmp_path / "study.jsonl"
    with Ledger(path) as ledger:
        ledger.append(row("old build", order=0, build="b0"))
        ledger.append(row("other size", order=1, argv=("bench_system", "--cycles=1")))
        ledger.append(row("kept", order=2, argv=("bench_system", "--cycles=2")))
        ledger.append(row("linked", order=3, argv=("bench_mi", "--cycles=2")))
    assert list(store.newest(load(path))["trial_key"]) == ["kept", "linked"]


def test_newest_keeps_what_was_planned_together(tmp_path: Path) -> None:
    """The same block number under other arms is another block; a session against another baseline stays."""
    path = tmp_path / "study.jsonl"
    with Ledger(path) as ledger:
        for cohort, base in (("two", "a"), ("other", "b"), ("three", "a")):
            for arm, role in ((base, "baseline"), ("c", "arm")):
                where = {"cohort": cohort, "provenance": cohort, "order": len(ledger.trials)}
                ledger.append(make_trial(arm, role, "ramp", 0, 100, 2, trial_key=f"{cohort} {arm}", **where))
    rows = load(path)
    assert list(store.newest(rows)["trial_key"]) == ["other b", "other c", "three a", "three c"]
    parts = [(base, set(part["cohort"])) for base, part in store.by_cohort(rows)]
    assert parts == [("a", {"two"}), ("b", {"other"}), ("a", {"three"})]


def test_digests_are_stable_and_tell_contents_apart() -> None:
    assert store.digest({"a": 1, "b": [2]}) == store.digest({"b": [2], "a": 1}) == "0855bfc20eb6cfaa"
    assert store.digest({"a": 1}) != store.digest({"a": "1"})


def test_a_row_holds_what_the_trial_measured() -> None:
    native = compile_native()
    work = workload.parse("ramp:n=20000,churn_ops=100", "smoke")
    arm = arms.make(allocators.find("hakmem", native), arms.parse("lean:DONTNEED:1")[1])
    where = {"study": "s", "trial_key": "k", "provenance": "p", "host": "h", "block": 4, "position": 2, "order": 9}
    made = store.row(run.trial(native, arm, work), arm, work, native, **where)
    assert made.status == "ok", made
    assert (made.arm, made.role, made.block, made.build) == ("hakmem LEAN DONTNEED 1 MB", "arm", 4, native.build_id)
    assert made.argv[0] == "bench_ramp_system"
    assert made.syscalls is not None and made.syscalls["madvise"] > 0
    assert made.syscalls_per_op == pytest.approx(sum(made.syscalls.values()) / (made.ops or 1))
    assert made.effective_gates is not None and made.effective_gates["HAKMEM_SS_MEM_LEAN"] == "1"
    assert made.peak_rss_kb is not None and made.end_rss_kb is not None and made.peak_rss_kb > made.end_rss_kb
    assert Trial.model_validate_json(made.model_dump_json()) == made


def test_what_an_allocator_does_not_count_is_null() -> None:
    native = compile_native()
    work = workload.parse("mixed:cycles=1000", "smoke")
    where = {"study": "s", "trial_key": "k", "provenance": "p", "host": "h", "block": 0, "position": 0, "order": 0}
    for name in ("system", "hakmem_minimal"):
        arm = arms.make(allocators.find(name, native), {})
        made = store.row(run.trial(native, arm, work), arm, work, native, **where)
        assert (made.status, made.syscalls, made.syscalls_per_op, made.counters) == ("ok", None, None, None)


def test_ledgers_are_merged_without_pooling_hosts(tmp_path: Path) -> None:
    """Two colleagues' ledgers share a session; the merged one holds each trial once, in the order they were run."""
    start = datetime(2026, 11, 21, 12, tzinfo=UTC)
    mine, theirs = tmp_path / "mine.jsonl", tmp_path / "theirs.jsonl"
    series = tmp_path / "theirs.series" / "x.parquet"
    series.parent.mkdir()
    series.write_bytes(b"a series")
    for path, host, minutes in ((mine, "here", (0, 2)), (theirs, "there", (1, 3))):
        with Ledger(path) as ledger:
            ledger.append(row("both", host="here", started=start))
            for at in minutes:
                where = {"host": host, "order": at, "series": "theirs.series/x.parquet" if host == "there" else None}
                ledger.append(row(f"{host}{at}", started=start.replace(minute=at + 1), **where))
    before = mine.read_bytes(), theirs.read_bytes()
    made = store.merge([mine, theirs], tmp_path / "all.jsonl")
    assert (made.trials, made.twice, made.hosts) == (5, 1, ("here", "there"))
    assert (mine.read_bytes(), theirs.read_bytes()) == before
    with pytest.raises(LedgerError, match="rows of 2 hosts"):
        load(made.path)
    rows = load(made.path, pool_hosts=True)
    assert list(rows["trial_key"]) == ["both", "here0", "there1", "here2", "there3"]
    assert list(rows["order"]) == [0, 1, 2, 3, 4]
    (copied,) = set(rows["series"].dropna())
    assert (tmp_path / copied).read_bytes() == b"a series" and copied.startswith("all.series")
    with pytest.raises(LedgerError, match="never written over"):
        store.merge([mine, theirs], made.path)
    edited = tmp_path / "edited.jsonl"
    with Ledger(edited) as ledger:
        ledger.append(row("both", started=start.replace(hour=13)))
    with pytest.raises(LedgerError, match="different trials under the key both"):
        store.merge([mine, edited], tmp_path / "never.jsonl")
    assert not (tmp_path / "never.jsonl").exists()


@pytest.mark.parametrize("schema", sorted(store.MIGRATIONS))
def test_a_ledger_of_an_older_schema_is_read_and_left_alone(tmp_path: Path, schema: int) -> None:
    """What an earlier hakmem wrote, with what today's appends behind it."""
    path = tmp_path / "old.jsonl"
    shutil.copy(Path(__file__).parent / "data" / f"schema_{schema}.jsonl", path)
    before = path.read_bytes()
    (plan,) = [record for record in store.records(path) if isinstance(record, Plan)]
    assert plan.cluster is False and plan.schema_ == store.SCHEMA
    table = load(path)
    assert list(table["role"]) == ["arm", "baseline", "baseline2"] and set(table["cohort"]) == {""}
    assert (table["mops"] > 0).all() and (table["schema"] == store.SCHEMA).all()
    assert path.read_bytes() == before
    with Ledger(path) as ledger:
        assert ledger.keys == set(table["trial_key"])
        ledger.append(row("new", host="workbench"))
    assert path.read_bytes().startswith(before)
    assert len(load(path)) == 4
    merged = store.merge([path, ledger_of(tmp_path / "mine.jsonl", 1)], tmp_path / "all.jsonl")
    assert merged.trials == 5
    assert all(json.loads(line)["schema"] == store.SCHEMA for line in merged.path.read_text().splitlines())


def test_every_older_schema_has_a_step_to_the_next() -> None:
    assert sorted(store.MIGRATIONS) == list(range(1, store.SCHEMA))


def test_nothing_that_is_stored_is_pickled() -> None:
    """Ledgers, traces and series are data: no module can make or read anything else."""
    for file in Path(store.__file__).parent.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not imported & {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib"}, file
        assert not named & {"read_pickle", "to_pickle", "allow_pickle"}, file
