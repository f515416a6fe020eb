import pytest
import yaml

from hakmem.errors import BadGate, BadInput, BadParameter
from hakmem.study import BLOCKS, CampaignSpec, GateSpec


def test_defaults_are_the_main_study() -> None:
    spec = CampaignSpec.checked({})
    assert spec.workloads == ("mixed:ws=400", "mixed:ws=100000", "ramp", "phases")
    assert (spec.lean, spec.decommit) == ((0, 1), ("FREE", "DONTNEED", "OFF"))
    assert spec.blocks == BLOCKS["quick"]


def test_sizes_go_by_profile_unless_said() -> None:
    assert CampaignSpec.checked({"profile": "smoke"}).blocks == BLOCKS["smoke"]
    assert CampaignSpec.checked({"profile": "smoke", "blocks": 7}).blocks == 7
    assert CampaignSpec.checked({"profile": "full", "blocks": None, "budget_minutes": None}).blocks == BLOCKS["full"]


def test_yaml_means_what_it_looks_like() -> None:
    given = yaml.safe_load(
        "decommit: [OFF, DONTNEED]\nlean: [off, on]\ntarget_mb: 20\ngates: {SS_PREWARM: [OFF, TOUCH]}"
    )
    spec = CampaignSpec.checked(given)
    assert spec.decommit == ("OFF", "DONTNEED")
    assert spec.lean == (0, 1)
    assert spec.target_mb == (20,)
    assert spec.gates == {"HAKMEM_SS_PREWARM": ("OFF", "TOUCH")}


def test_one_value_stands_for_a_list_and_words_for_several() -> None:
    spec = CampaignSpec.checked(
        {"decommit": "OFF", "lean": 1, "workloads": "mixed:ws=400 ramp", "gates": {"WARM_POOL": 0}}
    )
    assert (spec.decommit, spec.lean, spec.workloads) == (("OFF",), (1,), ("mixed:ws=400", "ramp"))
    assert spec.gates == {"HAKMEM_WARM_POOL": ("0",)}


def test_doubles_are_dropped_and_names_canonical() -> None:
    spec = CampaignSpec.checked({"workloads": ["ramp", "ramp:", "ramp:blocks=5"], "decommit": ["free", "FREE"]})
    assert spec.workloads == ("ramp", "ramp:n=5")
    assert spec.decommit == ("FREE",)


def test_a_spec_survives_the_ledger() -> None:
    spec = CampaignSpec.checked({"profile": "smoke", "gates": {"WARM_POOL": [0, 2]}})
    assert CampaignSpec.checked(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"decomit": "OFF"},
            BadParameter,
            r"unknown parameter 'decomit' \(did you mean decommit\?\); the parameters are",
        ),
        ({"decommit": "MAYBE"}, BadGate, "HAKMEM_SS_MEM_LEAN_DECOMMIT=MAYBE is not allowed: it takes FREE"),
        ({"lean": 2}, BadGate, "LEAN=2"),
        ({"target_mb": "lots"}, BadGate, "TARGET_MB=lots"),
        ({"target_mb": 0}, BadGate, "TARGET_MB=0"),
        ({"lean": []}, BadParameter, r"lean=\[\]: the list is empty"),
        ({"workloads": "mixd"}, BadParameter, "did you mean mixed"),
        ({"allocators": "jemaloc"}, BadParameter, "did you mean jemalloc"),
        ({"allocators": ["hakmem", "mimalloc@linked"]}, BadParameter, "do not compare"),
        ({"gates": {"NOPE": 1}}, BadGate, "NOPE"),
        ({"gates": {"LEAN": 1}}, BadParameter, "a parameter of its own"),
        ({"gates": {"WARM_POOL": 99}}, BadGate, "WARM_POOL=99"),
        ({"gates": ["WARM_POOL"]}, BadParameter, "mapping"),
        ({"blocks": 0}, BadParameter, "blocks=0"),
        ({"blocks": "many"}, BadParameter, "blocks='many'"),
        ({"budget_minutes": -1}, BadParameter, "budget_minutes=-1"),
        ({"profile": "quik"}, BadParameter, "profile='quik': .*'smoke', 'quick' or 'full'"),
        ({"study": "../escape"}, BadParameter, "study='../escape'"),
        ({"blocks": 0, "seed": -1}, BadParameter, "blocks=0.*; .*seed=-1"),
        ({"layouts": 1}, BadParameter, "layouts=1: it takes 0, or 2 and more"),
        ({"layouts": 4, "blocks": 7}, BadParameter, "two blocks each, not 7"),
        ({"profile": ["quick"]}, BadParameter, r"parameter profile=\['quick'\]: Input should be"),
    ],
)
def test_bad_parameters_are_refused_in_words(given: dict[str, object], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        CampaignSpec.checked(given)


# ---- one gate --------------------------------------------------------------------------------------------------------


def test_a_gate_becomes_a_sweep_with_its_default_as_baseline() -> None:
    spec = GateSpec.checked({"gate": "ss_prewarm", "profile": "smoke"})
    assert spec.gate == "HAKMEM_SS_PREWARM" and spec.sides() == ["RESERVE", "OFF", "TOUCH"]
    made = spec.campaign()
    assert made.gates == {"HAKMEM_SS_PREWARM": ("RESERVE", "OFF", "TOUCH")} and made.lean == (0,) and made.blocks == 2
    lean = GateSpec.checked({"gate": "DECOMMIT", "under": {"LEAN": 1}}).campaign()
    assert lean.decommit == ("FREE", "DONTNEED", "OFF") and lean.under == {"HAKMEM_SS_MEM_LEAN": "1"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            {"gate": "SS_EMPTY_RESERVE"},
            r"cannot differ from its default here \(only Lean reads it: under=\{LEAN: 1\}\)",
        ),
        ({"gate": "WARM_POOL"}, "HAKMEM_WARM_POOL takes an integer from 0 to 8: name the values to compare"),
        ({"gate": "SS_PREWARM", "values": "RESERVE"}, "cannot differ from its default"),
        ({"gate": "LEAN", "under": {"LEAN": 1}}, "it cannot stand in `under` too"),
        ({"gate": "SS_PREWRM"}, "unknown gate 'SS_PREWRM'"),
        ({"values": "2"}, "HAKMEM_ALLOC_PASSDOWN_SSOT=2 is not allowed"),
        ({"workload": "ramp"}, r"unknown parameter 'workload' \(did you mean workloads\?\)"),
    ],
)
def test_a_comparison_that_means_nothing_is_refused(given: dict[str, object], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        GateSpec.checked(given)
