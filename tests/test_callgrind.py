"""Instructions by where they stand: reading callgrind's file, and real drivers whose figures are known by two ways."""

from pathlib import Path

import pytest

from hakmem import workload
from hakmem.builds import allocators, arms
from hakmem.builds.arms import Arm
from hakmem.builds.build import Build, build
from hakmem.errors import BadParameter, TrialFailed
from hakmem.studies import callgrind
from hakmem.studies.callgrind import Place

LACKS = callgrind.why_not()
needs_valgrind = pytest.mark.skipif(LACKS is not None, reason=f"needs valgrind: {LACKS}")
FILE = """# callgrind format
version: 1
positions: line
events: Ir
summary: 1111

ob=(1) /lib/a.so
fl=(1) one.c
fn=(1) first
10 5
+2 7
cob=(2) /bin/b
cfi=(2) two.c
cfn=(2) second
calls=3 20
* 1000
fi=(3) inlined.h
-1 4
fe=(1)
12 5

ob=(2)
fl=(2)
fn=(2)
20 90
"""


def test_a_function_s_own_instructions_are_summed_by_place(tmp_path: Path) -> None:
    path = tmp_path / "callgrind.out"
    path.write_text(FILE)
    assert callgrind.read(path) == {
        Place("/lib/a.so", "one.c", "first"): 17,  # without the 1000 of what it calls
        Place("/lib/a.so", "inlined.h", "first"): 4,
        Place("/bin/b", "two.c", "second"): 90,
    }


def arm(text: str, made: Build) -> Arm:
    name, settings = arms.parse(text)
    return arms.make(allocators.find(name, made), settings)


@needs_valgrind
def test_the_loop_is_the_same_under_every_allocator() -> None:
    made = build()
    tried = [arm(text, made) for text in ("hakmem", "hakmem@linked", "system")]
    table = callgrind.counted(made, tried, ["mixed:ws=400"]).set_index("arm")
    assert table["loop"].max() - table["loop"].min() < 0.2  # of an op, where the allocators differ by dozens
    assert 15 < table.loc["hakmem", "allocator"] < 30 < table.loc["system", "allocator"]


@needs_valgrind
def test_rooms_are_told_apart() -> None:
    made = build()
    observe = arm("hakmem_observe", made)
    table = callgrind.by_room(made, [observe], ["churn:blocks=500"]).set_index("room")["instructions"]
    assert {"fast path", "stats", "tcache", "slab", "unit"} <= set(table.index)
    assert table["fast path"] > 20 and table.get("other", 0.0) < 0.1 * table.sum()


@needs_valgrind
def test_a_program_that_fails_is_told_of() -> None:
    made = build()
    short, _, _ = workload.short_and_long("battle")
    with pytest.raises(TrialFailed, match="hakmem on battle:n=20000 under callgrind: failed: "):
        callgrind.collected(made, arm("hakmem", made), short, warmup=-2)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idle", "workload 'idle' has no length to grow; these have one: mixed, ramp,"),
        ("mixed:cycles=500", "workload 'mixed:cycles=500' gives cycles, which is grown here: leave it out"),
    ],
)
def test_what_cannot_be_grown_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadParameter) as caught:
        workload.short_and_long(text)
    assert said in str(caught.value)


def test_short_and_long_differ_in_length_only() -> None:
    short, long, warmup = workload.short_and_long("mixed:ws=50")
    assert short.text == "mixed:ws=50,cycles=20000" and long.text == "mixed:ws=50,cycles=120000" and warmup == 20_000
    assert workload.short_and_long("churn")[1].text == "churn:generations=8"
