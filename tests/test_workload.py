import json
import re
import subprocess
from typing import get_args

import annotated_types
import pytest

from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native
from hakmem.drivers import KINDS, TRIAL_S, Profile
from hakmem.errors import BadParameter
from hakmem.workload import parse


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


@pytest.mark.parametrize("kind", KINDS)
def test_the_driver_takes_what_the_profile_gives(native: Build, kind: str) -> None:
    work = parse(kind, "smoke")
    done = subprocess.run(
        [native.driver(work.driver, "system"), *work.args], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["driver"] == work.driver
    assert said["ops"] > 0
    for argument in work.args[:-1]:
        name, value = argument.removeprefix("--").split("=")
        assert str(said["args"][name]) == value or float(said["args"][name]) == float(value)


def test_a_container_is_around_the_driver() -> None:
    work = parse("container:burst_mb=48", "smoke")
    assert work.driver == "idle" and work.memory_mb == 64 and not any("limit" in argument for argument in work.args)
    assert parse("container:limit_mb=32,burst_mb=48").memory_mb == 32 and parse("idle").memory_mb is None


def test_many_processes_at_once_are_started_once() -> None:
    assert parse("start_up", "quick").args[:2] == ("--processes=1", "--rounds=200")
    assert parse("start_up:processes=50", "quick").args[:2] == ("--processes=50", "--rounds=1")


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_ranges_are_those_of_the_driver(native: Build, kind: str) -> None:
    program = native.driver(KINDS[kind].driver, "system")
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    ranges = {m[1]: (float(m[2]), float(m[3])) for m in re.finditer(r"--([\w-]+) .*; (-?\d+)\.\.(\d+)\)", text)}
    names = set(re.findall(r"^  --([\w-]+)", text, flags=re.MULTILINE))
    for name, field in KINDS[kind].model_fields.items():
        if name in KINDS[kind].around:
            assert not re.search(rf"--{name.replace('_', '-')} ", text)
            continue
        option = KINDS[kind].flags.get(name, name).replace("_", "-")
        assert option in names
        metadata = [
            *field.metadata,
            *(m for part in get_args(field.annotation) for m in getattr(part, "__metadata__", ())),
        ]
        bounds = [bound for meta in metadata for bound in getattr(meta, "metadata", [meta])]
        low = next((bound.ge for bound in bounds if isinstance(bound, annotated_types.Ge)), None)
        high = next((bound.le for bound in bounds if isinstance(bound, annotated_types.Le)), None)
        if option in ranges:
            assert low is not None and high is not None, f"{kind}: {name} has no range"
            assert ranges[option][0] <= low <= high <= ranges[option][1], f"{kind}: {name}"


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("mixed:ws=400", "mixed:ws=400"),
        (" mixed : cycles=20000000 , ws=100000 ", "mixed:ws=100000,cycles=20000000"),
        ("ramp:n=300000", "ramp:n=300000"),
        ("ramp:blocks=300000", "ramp:n=300000"),
        ("ramp:keep-each=7", "ramp:keep_each=7"),
        ("larson:threads=2", "larson:threads=2"),
        ("phases", "phases"),
        ("phases:", "phases"),
    ],
)
def test_names_are_canonical(given: str, canonical: str) -> None:
    assert parse(given).text == canonical
    assert parse(canonical).text == canonical


def test_parameters_reach_the_driver_under_its_names() -> None:
    args = parse("ramp:n=1000,keep_each=7,churn_seconds=0.5").args
    assert args == ("--blocks=1000", "--keep-each=7", "--churn-seconds=0.5", "--json")


def test_profiles_size_only_what_was_left_unsaid() -> None:
    sizes = [parse("mixed:ws=400", profile).args for profile in get_args(Profile)]
    assert len(set(sizes)) == 3
    assert len({parse("mixed:ws=400,cycles=5", profile).args for profile in get_args(Profile)}) == 1


def test_expected_time_grows_with_the_work_asked_for() -> None:
    usual = parse("mixed:ws=400", "quick").expected_s
    assert usual == pytest.approx(TRIAL_S["quick"])
    assert parse("mixed:ws=400,cycles=600000000", "quick").expected_s > 8 * usual
    assert parse("soak:seconds=300").expected_s == 300


def test_threads_are_counted() -> None:
    assert [parse(text).threads for text in ("mixed", "larson:threads=4", "pc:pairs=3")] == [1, 4, 6]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mixd", r"unknown workload 'mixd' \(did you mean mixed\?\); the workloads are mixed, ramp"),
        ("", "unknown workload"),
        ("mixed:wss=4", r"unknown parameter 'wss' \(did you mean ws\?\); its parameters are"),
        ("mixed:400", "'400' is no name=value"),
        ("mixed:ws=0", "ws: .*greater than or equal to 1"),
        ("mixed:ws=many", "ws: .*valid integer"),
        ("mixed:ws=4.5", "ws: .*valid integer"),
        ("mixed:ws=4,ws=5", "gives ws twice"),
        ("ramp:n=5,blocks=6", "gives n twice"),
        ("larson:profile=huge", "profile: .*'tiny'"),
        ("phases:cycles=1000", "cycles: .*20"),
        ("battle:seed=3", "unknown parameter 'seed'"),
    ],
)
def test_bad_workloads_are_refused_in_words(given: str, said: str) -> None:
    with pytest.raises(BadParameter, match=said):
        parse(given)
