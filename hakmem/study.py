"""The parameters of a study, checked before anything is compiled or run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from hakmem import workload
from hakmem.builds import allocators, arms, gates
from hakmem.builds.arms import DECOMMIT, LEAN, SHORT, TARGET
from hakmem.drivers import Profile
from hakmem.errors import BadParameter, did_you_mean

PEERS = "peers"
STUDY = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"  # names a ledger
BLOCKS: dict[Profile, int] = {"smoke": 2, "quick": 5, "full": 10}
BUDGET_MINUTES: dict[Profile, float] = {"smoke": 0.4, "quick": 3.5, "full": 22}
SPEED_FIRST: dict[str, object] = {"lean": 0, "decommit": "FREE", "target_mb": 10}  # one setting: no Lean


def listed(given: object) -> list[object]:
    """Take one value for a list of one, and words for a list of words."""
    listed: list[object] = list(given.split()) if isinstance(given, str) else [given]
    if isinstance(given, list | tuple):
        listed = list(given)
    if not listed:
        raise ValueError("the list is empty")
    return listed


def countable(given: tuple[str, ...]) -> tuple[str, ...]:
    """Check that the instructions of workloads can be counted."""
    for text in given:
        workload.short_and_long(text)
    return given


T = TypeVar("T")
Several = Annotated[tuple[T, ...], BeforeValidator(listed)]  # as a parameter comes: a list, one value, words
Countable = Annotated[Several[str], AfterValidator(countable)]  # workloads


class Checked(BaseModel):
    """Parameters of a notebook: frozen, no unknown ones, one sentence for each that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def checked(cls, parameters: Mapping[str, object]) -> Self:
        """Make a spec of parameters as they come; None means the default.

        Raises
        ------
        BadParameter
            One sentence for each wrong parameter.
        BadGate
            A gate does not take a value.
        """
        try:
            return cls.model_validate(dict(parameters))
        except ValidationError as error:
            raise BadParameter("; ".join(_sentence(detail, cls) for detail in error.errors())) from error


class Parameters(Checked):
    """What the parameters of every study have in common: size and seed.

    `blocks` and `budget_minutes` go by `profile`, and so does what a study lists in `SIZES`.
    """

    SIZES: ClassVar[Mapping[Profile, Mapping[str, object]]] = {}

    study: str = Field(pattern=STUDY)
    blocks: int = Field(ge=1, le=10_000)
    budget_minutes: float = Field(gt=0, le=7 * 24 * 60)
    profile: Profile = "quick"
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _by_profile(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        said = {name: value for name, value in given.items() if value is not None}
        asked = said.get("profile")
        profile: Profile = next((name for name in BLOCKS if name == asked), "quick")  # others the field itself refuses
        size = {"blocks": BLOCKS[profile], "budget_minutes": BUDGET_MINUTES[profile], **cls.SIZES.get(profile, {})}
        return size | said

    def shared(self) -> dict[str, object]:
        """Return what every sweep of the study has in common."""
        return self.model_dump(include={*Parameters.model_fields})


class CampaignSpec(Parameters):
    """The parameters of a sweep, as a notebook or a command gives them; wrong ones are refused before anything runs.

    One value may stand for a list of one, text is split at blanks, and YAML's false for OFF is understood. `allocators`
    are names of `hakmem.builds.allocators`, and ``peers`` for every peer installed here; the first one is the baseline.
    `gates` maps any other gate to the values to sweep; `under` sets gates of every hakmem arm, the baseline too.
    `until_decided` adds blocks, up to four times `blocks`, until each verdict is decided or the budget is spent.
    `layouts` links every hakmem so many times, laid out otherwise each time; the layout changes every second block, and
    `until_decided` adds layouts with its blocks.
    """

    study: str = Field(default="lean_sweep", pattern=STUDY)
    workloads: tuple[str, ...] = ("mixed:ws=400", "mixed:ws=100000", "ramp", "phases")
    lean: tuple[int, ...] = (0, 1)
    decommit: tuple[str, ...] = ("FREE", "DONTNEED", "OFF")
    target_mb: tuple[int, ...] = (10, 30)
    gates: dict[str, tuple[str, ...]] = {}
    under: dict[str, str] = {}
    allocators: tuple[str, ...] = ("hakmem", "system", PEERS)
    until_decided: bool = False
    layouts: int = Field(default=0, ge=0, le=1_000)

    @field_validator("workloads", "allocators", mode="before")
    @classmethod
    def _names(cls, given: object) -> list[str]:
        return [str(name) for name in listed(given)]

    @field_validator("lean", "decommit", "target_mb", mode="before")
    @classmethod
    def _gate_values(cls, given: object, info: ValidationInfo) -> list[str]:
        gate = gates.table().gate({"lean": LEAN, "decommit": DECOMMIT, "target_mb": TARGET}[str(info.field_name)])
        return _unique(gate.value(value) for value in listed(given))

    @field_validator("gates", mode="before")
    @classmethod
    def _other_gates(cls, given: object) -> dict[str, list[str]]:
        if not isinstance(given, Mapping):
            raise ValueError("it takes a mapping of gates to values, such as {WARM_POOL: [0, 2]}")
        swept = {}
        for name, values in given.items():
            gate = gates.table().gate(SHORT.get(str(name), str(name)))
            if gate.env in SHORT.values():
                raise ValueError(f"{gate.env} has a parameter of its own: lean, decommit or target_mb")
            swept[gate.env] = _unique(gate.value(value) for value in listed(values))
        return swept

    @field_validator("under", mode="before")
    @classmethod
    def _fixed_gates(cls, given: object) -> dict[str, str]:
        return fixed(given)

    @field_validator("workloads")
    @classmethod
    def _known_workloads(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(workload.names(given))

    @field_validator("allocators")
    @classmethod
    def _known_allocators(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for name in given:
            if name != PEERS:
                allocators.check(name)
        linked = [name for name in given if allocators.suffix_of(name)]
        preloaded = [name for name in given if name not in (*linked, "system", allocators.NULL)]
        if linked and preloaded:
            raise ValueError(f"linked and preloaded arms do not compare: {' '.join(linked)}, {' '.join(preloaded)}")
        return tuple(_unique(given))

    @model_validator(mode="after")
    def _layouts_have_blocks(self) -> Self:
        if self.layouts and (self.layouts == 1 or self.blocks < 2 * self.layouts):
            raise ValueError(
                f"layouts={self.layouts}: it takes 0, or 2 and more with two blocks each, not {self.blocks}"
            )
        return self


class ProgramSpec(CampaignSpec):
    """A sweep over a program of the user's own instead of workloads: one run is one operation."""

    study: str = Field(default="program", pattern=STUDY)
    command: tuple[str, ...] = Field(min_length=1)


class GateSpec(Parameters):
    """One gate, A against B: A is the gate's default, B each of `values` (None: all others that it takes).

    `under` sets further gates of both sides, such as LEAN: 1 for a gate that only Lean reads. `margin` is the change
    that matters, as a fraction. On `counted` the instructions of an operation are counted.
    """

    study: str = Field(default="gate_ab", pattern=STUDY)
    gate: str = "ALLOC_PASSDOWN_SSOT"
    values: Several[str] | None = None
    under: dict[str, str] = {}
    workloads: Several[str] = ("mixed:ws=400", "mixed:ws=100000", "larson", "pc")
    counted: Countable = ("mixed:ws=400", "pc")
    margin: float = Field(default=0.01, gt=0, le=0.5)

    @field_validator("under", mode="before")
    @classmethod
    def _fixed_gates(cls, given: object) -> dict[str, str]:
        return fixed(given)

    @field_validator("gate")
    @classmethod
    def _known_gate(cls, given: str) -> str:
        return gates.table().gate(SHORT.get(given, given)).env

    @field_validator("workloads")
    @classmethod
    def _known_workloads(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(workload.names(given))

    @model_validator(mode="after")
    def _something_differs(self) -> Self:
        if self.gate in self.under:
            raise ValueError(f"{self.gate} is what is compared, it cannot stand in `under` too")
        settings, _ = arms.product({**{name: [value] for name, value in self.under.items()}, self.gate: self.sides()})
        if len(settings) < 2:
            lean = " (only Lean reads it: under={LEAN: 1})" if self.gate.startswith(arms.LEAN_ONLY) else ""
            raise ValueError(f"{self.gate}={', '.join(self.sides())} cannot differ from its default here{lean}")
        return self

    def sides(self) -> list[str]:
        """Return the values compared, the default first."""
        gate = gates.table().gate(self.gate)
        if self.values is None and gate.type == "INT":
            raise ValueError(f"{gate.env} takes {gate.allowed_text}: name the values to compare, such as values: [1]")
        others = gate.allowed if self.values is None else self.values
        return _unique([gate.default, *map(gate.value, others)])

    def campaign(self) -> CampaignSpec:
        """Return the sweep that answers it."""
        own = {LEAN: "lean", DECOMMIT: "decommit", TARGET: "target_mb"}.get(self.gate)
        swept = {own: self.sides()} if own else {"gates": {self.gate: self.sides()}}
        lean = SPEED_FIRST | swept
        same = self.shared() | {"under": self.under, "workloads": self.workloads}
        return CampaignSpec.checked({**same, **lean, "allocators": "hakmem"})


class TourSpec(Parameters):
    """A first look: one generated trace and one driver, replayed over every allocator found."""

    study: str = Field(default="start_here", pattern=STUDY)
    events: int = Field(default=300_000, ge=1_000, le=20_000_000)
    budget_minutes: float = Field(default=1, gt=0, le=60)

    def campaign(self, trace: Path) -> CampaignSpec:
        """Return the sweep of the tour."""
        works = ["mixed:ws=400", f"trace:{trace}"]
        return CampaignSpec.checked({**self.shared(), **SPEED_FIRST, "workloads": works})


STEADY = ("mixed:ws=400", "larson", "pc", "churn", "cross", "target", "battle", "ramp")
LONG = ("mixed:ws=100000", "big", "realloc", "phases")
BRIEF = (
    "mixed:ws=100000,cycles=10000000",
    "big:cycles=60",
    "realloc:cycles=5",
    "phases:cycles=1,work_ms=10",
)  # those of LONG, asked for less
TRACES, REPLAYED = "trace:data/traces", ".trace.zst,repeat=10"  # one replay of a short trace measures first touches


class RebaseSpec(Parameters):
    """Every build of hakmem against every installed allocator, all of one linkage.

    `peer` is the one that counts, named before anything is measured (None: mimalloc where it is installed, else the
    system's allocator). `linked`: directly linked programs (hakmem, mimalloc) instead of preloaded libraries. On
    `counted` the instructions of an operation are counted. `workloads` go by `profile`: a quick run gets
    through several blocks only where slow allocators are asked for less.
    """

    SIZES: ClassVar[Mapping[Profile, Mapping[str, object]]] = {
        "smoke": {"workloads": (*STEADY[:2], "big", "realloc", f"{TRACES}/gcc{REPLAYED}")},
        "quick": {"workloads": (*STEADY, *BRIEF, f"{TRACES}/*{REPLAYED}")},
        "full": {"workloads": (*STEADY, *LONG, f"{TRACES}/*{REPLAYED}")},
    }
    study: str = Field(default="rebase", pattern=STUDY)
    peer: str | None = None
    linked: bool = False
    workloads: Several[str]
    counted: Countable = ("mixed:ws=400", "larson:threads=1", "cross:threads=1")

    @field_validator("workloads")
    @classmethod
    def _known_workloads(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(workload.names(given))

    @field_validator("peer")
    @classmethod
    def _known_peer(cls, given: str | None) -> str | None:
        if given is not None:
            allocators.check(given)
            if given in allocators.FLAVOURS:
                raise ValueError(f"it takes an allocator that is not hakmem: {', '.join(allocators.PEERS)} or system")
        return given

    def named(self) -> str:
        """Return the peer that counts, as its rows are labelled."""
        peer = self.peer or ("mimalloc" if "mimalloc" in allocators.installed_peers() else "system")
        return peer + allocators.LINKED_SUFFIX if self.linked else peer

    def campaign(self) -> CampaignSpec:
        """Return the sweep that answers it: the peer is the baseline."""
        builds = [name + allocators.LINKED_SUFFIX * self.linked for name in ("hakmem_minimal", *allocators.FLAVOURS)]
        others = [] if self.linked else ["system", PEERS]
        arms = [self.named(), *builds, *others]
        return CampaignSpec.checked({**self.shared(), **SPEED_FIRST, "workloads": self.workloads, "allocators": arms})


def fixed(given: object) -> dict[str, str]:
    """Read gates with one value each; short names are spelled out."""
    if not isinstance(given, Mapping):
        raise ValueError("it takes a mapping of gates to one value each, such as {LEAN: 1, DECOMMIT: DONTNEED}")
    return gates.canonical({SHORT.get(str(name), str(name)): value for name, value in given.items()})


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _sentence(detail: Any, model: type[Checked]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else "parameters"
    if detail["type"] == "extra_forbidden":
        known = list(model.model_fields)
        return f"unknown parameter {name!r}{did_you_mean(name, known)}; the parameters are {', '.join(known)}"
    if detail["type"] == "string_pattern_mismatch":  # the only pattern is STUDY
        return f"parameter {name}={detail['input']!r}: it names a file: letters, digits, '_', '.', '-', at most 64"
    return f"parameter {name}={detail['input']!r}: {detail['msg'].removeprefix('Value error, ')}"
