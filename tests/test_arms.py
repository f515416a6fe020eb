import pytest

from hakmem.builds import allocators, arms, gates
from hakmem.builds.arms import DECOMMIT, LEAN, TARGET
from hakmem.builds.build import build as compile_native
from hakmem.errors import BadGate, BadParameter


@pytest.mark.parametrize(
    ("text", "name", "settings"),
    [
        ("hakmem", "hakmem", {}),
        ("mimalloc", "mimalloc", {}),
        ("hakmem@linked", "hakmem@linked", {}),
        ("preload:/a/b=c,d.so", "preload:/a/b=c,d.so", {}),
        ("hakmem:LEAN=1,DECOMMIT=DONTNEED", "hakmem", {LEAN: "1", DECOMMIT: "DONTNEED"}),
        ("hakmem_minimal: lean=1 , target_mb=20", "hakmem_minimal", {LEAN: "1", TARGET: "20"}),
        ("hakmem:HAKMEM_WARM_POOL=0", "hakmem", {"HAKMEM_WARM_POOL": "0"}),
        ("lean", "hakmem", {LEAN: "1"}),
        ("lean:off", "hakmem", {LEAN: "1", DECOMMIT: "OFF"}),
        ("lean:DONTNEED:10", "hakmem", {LEAN: "1", TARGET: "10", DECOMMIT: "DONTNEED"}),
    ],
)
def test_arms_are_read(text: str, name: str, settings: dict[str, str]) -> None:
    assert arms.parse(text) == (name, settings)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("hakmen", BadParameter, "did you mean hakmem"),
        ("hakmem:LEAN", BadParameter, "'LEAN' is no GATE=VALUE"),
        ("hakmem:LEEN=1", BadGate, "LEEN"),
        ("hakmem:LEAN=2", BadGate, "LEAN=2 is not allowed"),
        ("hakmem:LEAN=1,lean=0", BadParameter, "twice"),
        ("mimalloc:LEAN=1", BadParameter, "gates go with hakmem"),
        ("hakmem_minimal:WARM_POOL=0", BadGate, "compiled out"),
        ("lean:MAYBE", BadGate, "MAYBE"),
        ("lean:FREE:none", BadGate, "none"),
    ],
)
def test_bad_arms_are_refused_in_words(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        arms.parse(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("hakmem", "hakmem"),
        ("lean:DONTNEED:10", "hakmem LEAN DONTNEED 10 MB"),
        ("lean", "hakmem LEAN FREE 10 MB"),
        ("lean:OFF", "hakmem LEAN OFF"),
        ("hakmem@linked:WARM_POOL=0", "hakmem@linked WARM_POOL=0"),
        ("hakmem:PROFILE=MIXED_TINYV3_C7_SAFE", "hakmem PROFILE=MIXED_TINYV3_C7_SAFE"),
        ("system", "system"),
    ],
)
def test_labels_say_what_differs(text: str, label: str) -> None:
    name, settings = arms.parse(text)
    assert arms.make(allocators.find(name, compile_native()), settings).label == label


def test_settings_that_cannot_differ_are_one_arm() -> None:
    swept = {LEAN: ["0", "1"], DECOMMIT: ["FREE", "DONTNEED", "OFF"], TARGET: ["10", "30"]}
    settings, merged = arms.product(swept)
    # speed first, FREE and DONTNEED under each target, OFF
    assert len(settings) == 1 + 2 * 2 + 1
    assert settings[0] == {}
    assert {LEAN: "1", DECOMMIT: "OFF"} in settings
    assert len(merged) == 2
    assert "6 settings are one arm" in merged[0] and "DECOMMIT FREE, DONTNEED, OFF" in merged[0]
    assert "OFF: it does not read HAKMEM_SS_MEM_LEAN_TARGET_MB 10, 30" in merged[1]


def test_lean_does_not_prewarm() -> None:
    settings, merged = arms.product({LEAN: ["0", "1"], "HAKMEM_SS_PREWARM": ["RESERVE", "OFF", "TOUCH"]})
    assert [one.get("HAKMEM_SS_PREWARM") for one in settings] == [None, "OFF", "TOUCH", None]
    assert (
        "3 settings are one arm" in merged[0] and "it does not read HAKMEM_SS_PREWARM RESERVE, OFF, TOUCH" in merged[0]
    )


def test_every_combination_of_other_gates_is_an_arm() -> None:
    settings, merged = arms.product({LEAN: ["0"], "HAKMEM_WARM_POOL": ["0", "2"], "HAKMEM_TINY_MAG_LEVELS": ["1", "2"]})
    assert len(settings) == 4
    assert {} in settings  # both at their defaults
    assert merged == []


def test_profiles_are_arms_of_their_own() -> None:
    settings, _ = arms.product({LEAN: ["0"], "HAKMEM_PROFILE": ["", "MIXED_TINYV3_C7_BALANCED"]})
    assert {} in settings
    assert any(one.get("HAKMEM_PROFILE") for one in settings)


def test_what_settles_alike_runs_alike() -> None:
    """A settled arm leaves every gate that its mode reads as it was asked for."""
    swept = {LEAN: ["0", "1"], DECOMMIT: ["FREE", "OFF"], TARGET: ["10", "64"], "HAKMEM_HUGE_PAGES": ["LARGE", "NEVER"]}
    for mode in swept[LEAN]:
        asked = gates.canonical({LEAN: mode, DECOMMIT: "FREE", TARGET: "64", "HAKMEM_HUGE_PAGES": "NEVER"})
        before, after = gates.effective(asked), gates.effective(arms.settle(asked))
        differing = {name for name in before if before[name] != after[name]}
        assert differing == (set() if mode == "1" else {TARGET})


def test_gates_compiled_out_of_fast_are_refused() -> None:
    with pytest.raises(BadGate, match="compiled out"):
        arms.product({"HAKMEM_WARM_POOL": ["0"]}, fast=True)
