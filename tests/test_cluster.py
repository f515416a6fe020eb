"""Two real worker processes on loopback, under two host identities, and a planner in a process of its own."""

import asyncio
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest
from processes import children_named
from test_planning import plan

from hakmem import campaign, paths, planning, sample, store
from hakmem.errors import ClusterError
from hakmem.hosts import wire
from hakmem.hosts import worker as worker_side
from hakmem.planning import Plan
from hakmem.system import turn

PLANNER = """
import sys
from pathlib import Path
from hakmem import campaign, planning
from hakmem.hosts import cluster, wire
from hakmem.study import CampaignSpec
spec, ledger, where, revision, settles, *files = sys.argv[1:]
if revision:  # plan as another checkout would
    mine = cluster.offer
    def other(made, session):
        offered = mine(made, session)
        return offered.model_copy(update={"identity": offered.identity.model_copy(update={"revision": revision})})
    cluster.offer = other
if __name__ == "__main__":
    made = planning.plan(CampaignSpec.model_validate_json(spec), ledger=Path(ledger), host="planner")
    judge = None
    if settles:  # judge as the campaign's own test does
        sys.path.insert(0, {tests!r})
        from test_campaign import Settles
        judge = Settles(settles, at=3)
    where, local = wire.address(where, *map(Path, files)), where == wire.LOCAL
    done = cluster.run(planning.on_cluster(made), where, local=local, judge=judge)
    print(done.model_dump_json())
"""
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start processes that end with the test."""
    started: list[Process] = []

    def begin(*command: str) -> Process:
        with (tmp_path / f"{len(started)}.err").open("w") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=paths.root())
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def planner(
    start: Start, folder: Path, made: Plan, where: str, *files: Path, revision: str = "", settles: str = ""
) -> Process:
    """Plan and deal out in a process of its own: of another revision, or until a workload is called decided."""
    script = folder / "planner.py"
    script.write_text(PLANNER.replace("{tests!r}", repr(str(Path(__file__).parent))))
    spec = made.spec.model_dump_json()
    return start(sys.executable, str(script), spec, str(made.ledger), where, revision, settles, *map(str, files))


def worker(start: Start, address: str, host: str, *options: str) -> Process:
    return start(sys.executable, "-m", "hakmem", "worker", address, "--host", host, *options)


def wait_for(what: Callable[[], object], *processes: Process) -> object:
    until = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < until, "nothing happened for two minutes"
        assert all(process.poll() is None for process in processes), "a process ended too early"
        time.sleep(0.02)
    return found


def listening(folder: Path, process: Process) -> str:
    """Return where the planner, the first process of the test, listens."""
    said = wait_for(lambda: re.search(r"listening at (\S+);", (folder / "0.err").read_text()), process)
    assert isinstance(said, re.Match)
    return str(said[1])


def trials(path: Path) -> pd.DataFrame:
    return store.load(path, pool_hosts=True) if path.exists() else pd.DataFrame({"host": []})


def sockets(process: Process) -> set[str]:
    """Return the addresses at which a process and its children listen."""
    whole = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    found = [one for each in whole for one in each.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return {str(one.laddr.ip) for one in found}


def test_blocks_are_dealt_out_whole_and_a_lost_worker_leaves_rows(tmp_path: Path, start: Start) -> None:
    few = {"allocators": ["hakmem"], "decommit": ["OFF"], "target_mb": [10]}
    made = plan(tmp_path, workloads=["mixed:ws=50,cycles=15000000"], blocks=3, **few)
    session = planner(start, tmp_path, made, "tcp://127.0.0.1:0")
    address = listening(tmp_path, session)
    with turn.taken():  # nobody measures until both have a block
        one, two = worker(start, address, "one"), worker(start, address, "two")
        logs = tmp_path / "1.err", tmp_path / "2.err"
        wait_for(lambda: all("waiting until" in log.read_text() for log in logs), session, one, two)
    wait_for(lambda: set(trials(made.ledger)["host"]) == {"one", "two"}, session, one, two)
    wait_for(lambda: trials(made.ledger)["host"].value_counts()["one"] % len(made.arms), session, one, two)
    assert sockets(session) == sockets(two) == {"127.0.0.1"}
    one.kill()
    with turn.taken():  # nor does the study end before this one asks
        again = worker(start, address, "two")
        assert again.wait(timeout=120) == 8
    assert "a worker of host two is there already" in (tmp_path / "3.err").read_text()
    out, _ = session.communicate(timeout=200)
    done = campaign.Done.model_validate_json(out)
    assert two.wait(timeout=60) == 0

    rows = trials(made.ledger)
    kinds = [json.loads(line)["type"] for line in made.ledger.read_text().splitlines()]
    assert (kinds.count("plan"), kinds.count("provenance")) == (1, 2)
    assert set(rows["provenance"]) == set(store.provenance(made.ledger))
    lost = rows[rows["status"] == "lost"]
    assert set(lost["host"]) == {"one"} and lost["block"].nunique() == 1
    assert all("its worker on one was lost" in reasons for reasons in lost["spoiled"])
    assert lost["ops"].isna().all()
    assert set(rows.loc[rows["status"] != "lost", "status"]) == {"ok"}
    # No block is split over hosts; the lost one is run again, whole, as a further block.
    arms = len(made.arms)
    assert (rows.groupby("block")["host"].nunique() == 1).all() and (rows.groupby("block").size() == arms).all()
    assert len(set(rows["block"])) > made.spec.blocks and done.spoiled_blocks >= 1
    assert list(rows["order"]) == list(range(len(rows))) and done.measured == len(rows)
    # One measurement at a time on this host, whatever it is called: two blocks never overlap.
    spans = rows[rows["status"] == "ok"].groupby("block").agg(begin=("started", "min"), end=("started", "max"))
    spans = spans.sort_values("begin")
    assert (spans["begin"].iloc[1:].to_numpy() > spans["end"].iloc[:-1].to_numpy()).all()
    # The study is complete for whoever comes next, and its verdict rests on pairs within hosts.
    later = planning.on_cluster(made)
    assert later.to_measure == 0 and len(campaign.rows(later)) == len(rows)
    (judged,) = campaign.verdicts(later, campaign.rows(later))
    assert judged.host == "one + two" or "one" not in set(rows.loc[rows["status"] == "ok", "host"])
    assert judged.word != "NO-GO"  # a lost worker is not held against an arm


def test_local_starts_a_worker_here_and_adds_blocks_until_decided(tmp_path: Path, start: Start) -> None:
    few = {"allocators": ["hakmem"], "decommit": ["OFF"], "target_mb": [10], "blocks": 2, "until_decided": True}
    works = ["mixed:ws=50,cycles=20000", "idle:burst_mb=5,idle_ms=100.0"]
    made = plan(tmp_path, workloads=works, **few)
    session = planner(start, tmp_path, made, "local", settles=works[0])
    done = campaign.Done.model_validate_json(session.communicate(timeout=200)[0])
    rows = campaign.rows(planning.on_cluster(made))
    assert set(rows["host"]) == {"planner"} and set(rows["status"]) == {"ok"} and len(rows) == done.measured
    planned = rows[rows["block"] < made.looks[-1]].groupby("workload")["block"].nunique()
    assert dict(planned) == {works[0]: 3, works[1]: 2} and done.undecided == ()
    assert planning.on_cluster(made).to_measure == planning.counted(made.on("planner")).to_measure == 0  # alone, too
    series = rows["series"].dropna()
    if sample.use(1):
        assert len(series) >= 1
    assert all((tmp_path / one).is_file() for one in series)  # they crossed over too


def test_a_worker_that_would_measure_something_else_does_not_join(tmp_path: Path, start: Start) -> None:
    made = plan(tmp_path, blocks=1)
    session = planner(start, tmp_path, made, "tcp://127.0.0.1:0", revision="0123abc")
    refused = worker(start, listening(tmp_path, session), "other")
    assert refused.wait(timeout=120) == ClusterError.exit_code
    said = (tmp_path / "1.err").read_text()
    assert "host other would measure something else: revision " in said and "0123abc there" in said
    assert said.count("\n") == 2  # where it looks, and why it ends
    assert not made.ledger.exists() or trials(made.ledger).empty


def test_a_worker_lets_go_of_its_block_when_the_planner_is_gone(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    session = planner(
        start, tmp_path, plan(tmp_path, workloads=["mixed:ws=50,cycles=100000000000"]), "tcp://127.0.0.1:0"
    )
    working = worker(start, listening(tmp_path, session), "one")

    def measuring() -> list[psutil.Process]:
        joined = "one measures for" in (tmp_path / "1.err").read_text()  # before that it asks allocators for versions
        return children_named(working.pid, "bench_") if joined else []

    (child,) = wait_for(measuring, session, working)
    session.kill()
    assert working.wait(timeout=120) == 0
    assert not child.is_running()
    assert not list((tmp_path / "scratch").glob("hakmem-[bw]*"))  # the block itself ended, in order
    assert "Traceback" not in (tmp_path / "1.err").read_text()


def test_a_sweep_that_ends_before_a_worker_has_joined_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        where = wire.address(f"tcp://127.0.0.1:{closed.getsockname()[1]}")
    monkeypatch.setattr(worker_side, "JOIN_S", 1.0)
    monkeypatch.setattr(worker_side.orphans, "children", lambda _: set())  # this process has other children
    wire.configure()
    with pytest.raises(ClusterError, match=f"the sweep at {where.url} ended while this host made ready"):
        asyncio.run(worker_side._work(where, "one", str(tmp_path)))


def test_an_interrupted_search_for_a_sweep_ends_quietly(tmp_path: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
    looking = worker(start, address, "one")
    log = tmp_path / "0.err"
    wait_for(lambda: "looking for" in log.read_text(), looking)
    looking.send_signal(signal.SIGINT)
    assert looking.wait(timeout=60) == 130
    assert log.read_text().strip() == f"looking for the sweep at {address}, 120 s at most"


def test_an_address_that_is_taken_is_an_error(tmp_path: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        session = planner(start, tmp_path, plan(tmp_path, blocks=1), address)
        assert session.wait(timeout=120) != 0
    last = (tmp_path / "0.err").read_text().strip().rpartition("\n")[2]
    assert f"ClusterError: cannot listen at {address}: " in last and "in use" in last


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority and a certificate for 127.0.0.1."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl: sudo apt-get install openssl")
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2", "-nodes", "-batch"]
    own = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", str(key), "-out", str(cert), *name]
    subprocess.run(own, check=True, capture_output=True)
    shutil.copy(cert, ca)
    return ca, cert, key


def test_tls_lets_in_only_who_has_a_certificate(tmp_path: Path, start: Start) -> None:
    ca, cert, key = certificates(tmp_path)
    made = plan(tmp_path, blocks=1, workloads=["ramp:n=2000,churn_ops=100"])
    session = planner(start, tmp_path, made, "tls://127.0.0.1:0", ca, cert, key)
    address = listening(tmp_path, session)
    assert address.startswith("tls://127.0.0.1:")
    context = ssl.create_default_context(cafile=str(ca))
    plain = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60)
    with plain, pytest.raises((ssl.SSLError, ConnectionError)):
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as shaken:
            shaken.recv(1)  # with TLS 1.3 the refusal comes with the first answer
        raise AssertionError("nobody asked for a certificate")
    (tmp_path / "others").mkdir()
    stranger = wire.address(address, *certificates(tmp_path / "others"))
    with pytest.raises(ClusterError, match="do not trust each other"):
        asyncio.run(worker_side._offered(stranger))
    options = [f"--tls-ca={ca}", f"--tls-cert={cert}", f"--tls-key={key}"]
    joined = worker(start, address, "guarded", *options)
    out, _ = session.communicate(timeout=200)
    assert campaign.Done.model_validate_json(out).measured >= len(made.arms)
    assert joined.wait(timeout=60) == 0
    assert set(trials(made.ledger)["host"]) == {"guarded"}
