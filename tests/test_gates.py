import json
import re
import subprocess
from itertools import cycle, islice
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from hakmem import paths
from hakmem.builds import gates
from hakmem.builds.build import build
from hakmem.errors import BadGate

BALANCED = {
    "HAKMEM_SS_MEM_LEAN": "1",
    "HAKMEM_SS_MEM_LEAN_TARGET_MB": "10",
    "HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF",
    "HAKMEM_PROFILE": "MIXED_TINYV3_C7_BALANCED",
}


def test_c_and_python_read_the_same_lines(tmp_path: Path) -> None:
    source = tmp_path / "list.c"
    source.write_text(
        '#include <stdio.h>\n#define GATE(...) row("G", #__VA_ARGS__);\n#define PROFILE(...) row("P", #__VA_ARGS__);\n'
        'static void row(const char *kind, const char *fields) { printf("%s|%s\\n", kind, fields); }\n'
        f'int main(void) {{\n#include "{paths.gates_def()}"\nreturn 0; }}\n'
    )
    subprocess.run(["cc", "-o", tmp_path / "list", source], check=True)
    rows = subprocess.run([tmp_path / "list"], check=True, capture_output=True, text=True).stdout.splitlines()
    table = gates.table()
    in_c = [re.match(r"([GP])\|(\w+)", row) for row in rows]
    assert [found[2] for found in in_c if found and found[1] == "G"] == [gate.name for gate in table.gates]
    assert [found[2] for found in in_c if found and found[1] == "P"] == [profile.name for profile in table.profiles]
    for gate, row in zip(table.gates, rows, strict=False):
        assert f'"{gate.default}"' in row
        assert f'"{gate.doc}"' in row


@pytest.mark.parametrize(
    ("env", "default"),
    [
        ("HAKMEM_SS_MEM_LEAN", "0"),
        ("HAKMEM_SS_MEM_LEAN_TARGET_MB", "10"),
        ("HAKMEM_SS_MEM_LEAN_DECOMMIT", "FREE"),
        ("HAKMEM_SS_OS_STATS", "0"),
        ("HAKMEM_TINY_MEM_DUMP", "0"),
        ("HAKMEM_SS_STATS_DUMP", "0"),
        ("HAKMEM_WARM_POOL_STATS", "0"),
        ("HAKMEM_TINY_USE_SUPERSLAB", "1"),
        ("HAKMEM_ALLOC_PASSDOWN_SSOT", "0"),
        ("HAKMEM_PROFILE", ""),
    ],
)
def test_the_published_defaults_hold(env: str, default: str) -> None:
    assert gates.effective({})[env] == default


def test_what_is_asked_for_comes_out_canonical() -> None:
    asked = {"ss_mem_lean_decommit": "dontneed", "HAKMEM_SS_MEM_LEAN": True, "SS_MEM_LEAN_TARGET_MB": "020"}
    found = gates.canonical(asked)
    assert found == {
        "HAKMEM_SS_MEM_LEAN": "1",
        "HAKMEM_SS_MEM_LEAN_TARGET_MB": "20",
        "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED",
    }
    assert list(found) == [env for env in gates.effective({}) if env in found]
    assert gates.canonical(found) == found


@pytest.mark.parametrize(
    ("text", "value"), [("OFF", "OFF"), ("off", "OFF"), ("No", "OFF"), ("false", "OFF"), ("FREE", "FREE")]
)
def test_yaml_cannot_turn_off_into_something_else(text: str, value: str) -> None:
    loaded = yaml.safe_load(f"SS_MEM_LEAN_DECOMMIT: {text}")
    assert gates.canonical(loaded) == {"HAKMEM_SS_MEM_LEAN_DECOMMIT": value}


@pytest.mark.parametrize(("text", "value"), [("true", "1"), ("off", "0"), ("1", "1"), ("'0'", "0")])
def test_yaml_booleans_switch_a_bool(text: str, value: str) -> None:
    assert gates.canonical(yaml.safe_load(f"SS_MEM_LEAN: {text}")) == {"HAKMEM_SS_MEM_LEAN": value}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("SS_MEM_LEAN", 2, "HAKMEM_SS_MEM_LEAN=2 is not allowed: it takes 0 or 1"),
        ("SS_MEM_LEAN", "", "HAKMEM_SS_MEM_LEAN= is not allowed: it takes 0 or 1"),
        ("SS_MEM_LEAN", 1.0, "HAKMEM_SS_MEM_LEAN=1.0 is not allowed"),
        (
            "SS_MEM_LEAN_DECOMMIT",
            "MAYBE",
            "HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE is not allowed: it takes FREE or DONTNEED",
        ),
        ("SS_MEM_LEAN_DECOMMIT", True, "HAKMEM_SS_MEM_LEAN_DECOMMIT=True is not allowed"),
        ("SS_MEM_LEAN_TARGET_MB", 0, "HAKMEM_SS_MEM_LEAN_TARGET_MB=0 is not allowed: it takes an integer from 1 to"),
        ("SS_MEM_LEAN_TARGET_MB", False, "HAKMEM_SS_MEM_LEAN_TARGET_MB=False is not allowed"),
        ("SS_MEM_LEAN_TARGET_MB", "1e3", "HAKMEM_SS_MEM_LEAN_TARGET_MB=1e3 is not allowed"),
        ("SS_MEM_LEAN_TARGET_MB", "9" * 5000, "is not allowed: it takes an integer"),
        ("SS_MEM_LEAN_TARGET_MB", None, "HAKMEM_SS_MEM_LEAN_TARGET_MB=None is not allowed"),
        ("SS_MEM_LEAN_TARGET_MB", [10], r"HAKMEM_SS_MEM_LEAN_TARGET_MB=\[10\] is not allowed"),
        ("SS_EMPTY_RESERVE", False, "HAKMEM_SS_EMPTY_RESERVE=False is not allowed: it takes 0 or 1 or 2 or ADAPTIVE"),
        ("PROFILE", "SAFE", "HAKMEM_PROFILE=SAFE is not allowed: it takes MIXED_TINYV3_C7_SAFE or"),
    ],
)
def test_a_bad_value_names_gate_value_and_what_is_allowed(name: str, value: object, says: str) -> None:
    with pytest.raises(BadGate, match=says):
        gates.canonical({name: value})


def test_an_unknown_gate_suggests_the_closest_and_lists_all() -> None:
    with pytest.raises(BadGate) as caught:
        gates.canonical({"HAKMEM_SS_MEM_LAEN": 1})
    message = str(caught.value)
    assert "unknown gate 'HAKMEM_SS_MEM_LAEN' (did you mean SS_MEM_LEAN?)" in message
    assert all(gate.name in message for gate in gates.table().gates)


def test_one_gate_under_two_names_must_agree() -> None:
    assert gates.canonical({"SS_MEM_LEAN": 1, "HAKMEM_SS_MEM_LEAN": "1"}) == {"HAKMEM_SS_MEM_LEAN": "1"}
    with pytest.raises(BadGate, match="HAKMEM_SS_MEM_LEAN is given twice, as 1 and as 0"):
        gates.canonical({"SS_MEM_LEAN": 1, "HAKMEM_SS_MEM_LEAN": 0})


def test_a_profile_sets_only_what_the_user_has_not_set() -> None:
    assert gates.expand({"PROFILE": "mixed_tinyv3_c7_balanced"}) == BALANCED
    asked = {"PROFILE": "MIXED_TINYV3_C7_BALANCED", "SS_MEM_LEAN_DECOMMIT": "DONTNEED"}
    assert gates.expand(asked) == BALANCED | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED"}
    assert gates.expand({"SS_MEM_LEAN": 1}) == {"HAKMEM_SS_MEM_LEAN": "1"}
    assert gates.expand({"PROFILE": ""}) == {"HAKMEM_PROFILE": ""}


def test_effective_names_every_gate_in_order() -> None:
    found = gates.effective({"PROFILE": "MIXED_TINYV3_C7_BALANCED", "SS_MEM_LEAN_TARGET_MB": 20})
    assert list(found) == [gate.env for gate in gates.table().gates]
    assert found["HAKMEM_SS_MEM_LEAN"] == "1"
    assert found["HAKMEM_SS_MEM_LEAN_TARGET_MB"] == "20"
    assert found["HAKMEM_SS_SIZE_KB"] == "2048"


def test_gates_that_fast_compiles_out_are_refused_for_it() -> None:
    assert gates.canonical({"SS_MEM_LEAN": 1, "BENCH_PREFAULT": 0}, fast=True)
    for name in ("ALLOC_PASSDOWN_SSOT", "SS_OS_STATS"):
        with pytest.raises(BadGate, match=f"HAKMEM_{name} has no effect here: .* compiled out of the FAST build"):
            gates.canonical({name: 1}, fast=True)


def allocator_says(driver: str, environment: dict[str, str]) -> tuple[dict[str, str], str]:
    """Run a driver and return the gates its allocator runs with, and its complaints."""
    command = [build().bins[driver], "1000", "10", "--json"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["allocator"]["gates"], done.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"SS_MEM_LEAN": True, "SS_MEM_LEAN_DECOMMIT": False},
        {"PROFILE": "MIXED_TINYV3_C7_SAFE", "SS_PREWARM": "OFF"},
        {"PROFILE": "MIXED_TINYV3_C7_BALANCED", "SS_MEM_LEAN_TARGET_MB": "0020"},
    ],
    ids=str,
)
@pytest.mark.parametrize("fast", [False, True])
def test_the_allocator_runs_with_the_effective_gates(settings: dict[str, object], fast: bool) -> None:
    driver = "bench_random_mixed_hakmem_minimal" if fast else "bench_random_mixed_hakmem"
    found, complaints = allocator_says(driver, gates.canonical(settings, fast=fast))
    scopes = ("CORE",) if fast else ("CORE", "DUMP", "RESEARCH")
    read = [gate.env for gate in gates.table().gates if gate.scope in scopes]
    assert complaints == ""
    assert found == {env: value for env, value in gates.effective(settings).items() if env in read}


def test_the_allocator_takes_every_allowed_value_as_written_here() -> None:
    tuned = [gate for gate in gates.table().gates if gate.scope in ("CORE", "RESEARCH")]
    for turn in range(max(len(gate.allowed) for gate in tuned)):
        asked = {gate.env: next(islice(cycle(gate.allowed), turn, None)) for gate in tuned}
        found, complaints = allocator_says("bench_random_mixed_hakmem", asked)
        assert complaints == ""
        assert {env: found[env] for env in asked} == asked


def test_the_allocator_names_a_bad_value_and_keeps_the_default() -> None:
    found, complaints = allocator_says("bench_random_mixed_hakmem", {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "MAYBE"})
    assert found["HAKMEM_SS_MEM_LEAN_DECOMMIT"] == "FREE"
    (line,) = complaints.splitlines()
    for part in ("HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE", "FREE DONTNEED OFF", "default FREE"):
        assert part in line


@given(st.data())
def test_every_allowed_value_is_its_own_canonical_form(data: st.DataObject) -> None:
    gate = data.draw(st.sampled_from(gates.table().gates))
    ends = list(map(int, gate.allowed)) if gate.type == "INT" else []
    value = data.draw(st.integers(*ends).map(str) if ends else st.sampled_from(gate.allowed))
    assert gate.value(value) == value
    assert gate.value(f" {value.lower()} ") == value
    if ends:
        outside = data.draw(st.integers(max_value=ends[0] - 1) | st.integers(min_value=ends[1] + 1))
        with pytest.raises(BadGate):
            gate.value(outside)


@given(st.text() | st.integers() | st.floats() | st.none() | st.booleans())
def test_any_value_is_allowed_or_a_bad_gate(given_value: object) -> None:
    for gate in gates.table().gates:
        try:
            value = gate.value(given_value)
        except BadGate as error:
            assert str(error).startswith(f"{gate.env}=")
        else:
            assert gate.value(value) == value


def test_settings_validate_a_field_of_a_model() -> None:
    class Arm(BaseModel):
        gates: gates.Settings

    assert Arm.model_validate({"gates": {"ss_mem_lean": True}}).gates == {"HAKMEM_SS_MEM_LEAN": "1"}
    with pytest.raises(BadGate, match="did you mean SS_MEM_LEAN"):
        Arm.model_validate({"gates": {"ss_mem_laen": True}})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('GATE(A, BOOL, "2", "0 1", CORE, "doc")', "line 2, gate A: HAKMEM_A=2 is not allowed: it takes 0 or 1"),
        ('GATE(A, INT, "2", "0 9", CORE, "doc")', "line 2, gate A: .*range"),
        ('GATE(A, INT, "2", "0..x", CORE, "doc")', "line 2, gate A: .*invalid literal"),
        ('GATE(A, WORD, "2", "0 1", CORE, "doc")', "line 2, gate A: .*'PROFILE', 'FILE' or 'DIR'"),
        ('GATE(A, BOOL, "0", "0 1", EXTRA, "doc")', "line 2, gate A: .*'CORE'"),
        ('GATE(A, BOOL, "0", "0 1", CORE)', "line 2 is neither a GATE nor a PROFILE line: GATE"),
        ('PROFILE(P, "A", "doc")', "line 2: a profile is a list of NAME=VALUE, not 'A'"),
        ('PROFILE(P, "B=1", "doc")', "unknown gate 'B'"),
        ('PROFILE(P, "X=7", "doc")', "HAKMEM_X=7 is not allowed"),
        ('GATE(X, BOOL, "0", "0 1", CORE, "doc")', "lists X twice"),
        ("int x;", "line 2 is neither"),
    ],
)
def test_a_malformed_line_is_named(line: str, says: str) -> None:
    with pytest.raises(BadGate, match=says):
        gates.parse(f'GATE(X, BOOL, "0", "0 1", CORE, "doc") /* one\n line */ {line}\n')


def test_the_page_of_the_gates_is_up_to_date() -> None:
    page = (paths.root() / "docs" / "gates.md").read_text(encoding="utf-8")
    assert page == gates.markdown(gates.table()), "docs/gates.md is stale: run `make generated`"


def test_the_page_shows_every_gate_and_profile_once_as_a_row() -> None:
    page = gates.markdown(gates.table())
    for gate in gates.table().gates:
        assert page.count(f"\n| `{gate.env}` | ") == 1
    for profile in gates.table().profiles:
        assert page.count(f"\n| `{profile.name}` | ") == 1


@pytest.mark.parametrize("value", ["/run/stats.%p.json", "2", ""])
def test_a_file_gate_takes_a_path_or_a_descriptor(value: str) -> None:
    assert gates.canonical({"STATS_JSON": value}) == {"HAKMEM_STATS_JSON": value}


@pytest.mark.parametrize(
    ("gate", "value"),
    [
        ("STATS_JSON", "stats.json"),
        ("STATS_JSON", "-1"),
        ("STATS_JSON", '/run/a"b'),
        ("STATS_JSON", "/run/a\nb"),
        ("STATS_JSON", "/" + "x" * 1000),
        ("STATS_LIVE", "3"),
        ("STATS_LIVE", "here"),
    ],
)
def test_any_other_place_is_refused(gate: str, value: str) -> None:
    with pytest.raises(BadGate, match=f"(?s)HAKMEM_{gate}=.* is not allowed: it takes (an|the) absolute path"):
        gates.canonical({gate: value})
