"""Arms: an allocator of this machine under gates, how it is written, and which arms cannot differ.

An arm is written ``mimalloc``, ``hakmem:LEAN=1,DECOMMIT=OFF``, ``lean:DONTNEED:10`` or ``preload:/path/lib.so``; the
allocator at another revision is ``rev:HEAD~1``, with a patch ``patch:FILE.diff``, with gates ``rev:HEAD~1:LEAN=1``.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from hakmem.builds import allocators, gates, revisions
from hakmem.builds.allocators import Allocator
from hakmem.errors import BadParameter

Role = Literal["baseline", "baseline2", "arm", "peer"]
LEAN, DECOMMIT, TARGET = "HAKMEM_SS_MEM_LEAN", "HAKMEM_SS_MEM_LEAN_DECOMMIT", "HAKMEM_SS_MEM_LEAN_TARGET_MB"
SHORT = {"LEAN": LEAN, "DECOMMIT": DECOMMIT, "TARGET_MB": TARGET}
LEAN_ONLY = ("HAKMEM_SS_MEM_LEAN_", "HAKMEM_SS_LEAN_", "HAKMEM_SS_EMPTY_RESERVE", "HAKMEM_SS_PARTIAL_RELEASE")
SPEED_FIRST_ONLY = ("HAKMEM_SS_PREWARM",)
FAST = "hakmem_minimal"


class Arm(BaseModel):
    """One arm.

    Attributes
    ----------
    label : str
        What makes it differ, for people: ``hakmem LEAN DONTNEED 10 MB``.
    role : str
        ``baseline`` (A), ``baseline2`` (A'), ``arm`` or ``peer``.
    allocator : Allocator
    gates : dict of str to str
        Environment variables to set; empty for the allocator's defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    label: str
    role: Role
    allocator: Allocator
    gates: dict[str, str]

    def laid_out(self, number: int) -> "Arm":
        """Return the arm in one of its allocator's layouts."""
        return self.model_copy(update={"allocator": self.allocator.laid_out(number)})

    def setting(self) -> str:
        """Return the gates as one would type them."""
        return " ".join(f"{name}={value}" for name, value in self.gates.items())


def parse(text: str) -> tuple[str, dict[str, str]]:
    """Read an arm.

    Returns
    -------
    tuple
        The allocator's name, and its canonical gates.

    Raises
    ------
    BadParameter, BadGate
        The message names what is allowed.
    """
    text = text.strip()
    if text.startswith("preload:"):
        return text, {}
    name, _, rest = text.partition(":")
    if name == "lean":
        mode, _, target = rest.partition(":")
        settings = {LEAN: "1"} | ({DECOMMIT: mode} if mode else {}) | ({TARGET: target} if target else {})
        return "hakmem", gates.canonical(settings)
    known = gates.table()
    if text.startswith(revisions.PREFIXES):
        kind, what, rest = [*text.split(":", 2), ""][:3]
        name = f"{kind}:{what}"
        known = gates.table(revisions.make(name).gates_def)
    allocators.check(name)
    flavour = name.removesuffix(allocators.suffix_of(name))
    asked: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        gate, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise BadParameter(f"arm {text!r}: {gate!r} is no GATE=VALUE")
        if flavour not in allocators.FLAVOURS and not name.startswith(revisions.PREFIXES):
            raise BadParameter(f"arm {text!r}: gates go with {', '.join(allocators.FLAVOURS)} only")
        if asked.setdefault(SHORT.get(gate.upper(), gate), value) != value:
            raise BadParameter(f"arm {text!r} gives {gate} twice")
    return name, known.canonical(asked, fast=flavour == FAST)


def make(allocator: Allocator, settings: Mapping[str, str], role: Role = "arm") -> Arm:
    """Name an arm by what makes it differ from the allocator's defaults.

    Parameters
    ----------
    allocator : Allocator
    settings : mapping
        Canonical gates.
    role : str

    Returns
    -------
    Arm
    """
    parts = [allocator.label]
    named: tuple[str, ...] = ()
    if allocator.is_hakmem:
        effective = allocator.gates().effective(settings)
        if "HAKMEM_PROFILE" not in settings and effective.get(LEAN) == "1":
            parts += ["LEAN", effective[DECOMMIT]]
            parts += [f"{effective[TARGET]} MB"] if effective[DECOMMIT] != "OFF" else []
            named = (LEAN, DECOMMIT, TARGET)
    parts += [f"{name.removeprefix(gates.PREFIX)}={value}" for name, value in settings.items() if name not in named]
    return Arm(label=" ".join(parts), role=role, allocator=allocator, gates=dict(settings))


def settle(settings: Mapping[str, str], known: gates.Table | None = None) -> dict[str, str]:
    """Reduce settings to those that matter: two settings that settle alike are one arm.

    Speed-first reads none of Lean's gates, Lean does not prewarm, Lean without decommit has no target, and a gate at
    its default is unset. The three Lean gates are spelled out wherever they matter, so that an arm's gates say what it
    is.
    """
    known = known or gates.table()
    effective = known.effective(settings)
    lean, releases = effective[LEAN] == "1", effective[DECOMMIT] != "OFF"
    settled = {}
    for gate in known.gates:
        value = effective[gate.env]
        if (
            gate.type == "PROFILE"
            or (gate.env.startswith(LEAN_ONLY) and not lean)
            or (gate.env.startswith(SPEED_FIRST_ONLY) and lean)
            or (gate.env == TARGET and not releases)
        ):
            continue
        if value != gate.default or (lean and gate.env in (DECOMMIT, TARGET)):
            settled[gate.env] = value
    return settled


def product(
    swept: Mapping[str, Sequence[str]], *, fast: bool = False, known: gates.Table | None = None
) -> tuple[list[dict[str, str]], list[str]]:
    """Lay out every combination of gate values, once each.

    Parameters
    ----------
    swept : mapping
        Gate to its values.
    fast : bool
        For the FAST build: gates compiled out of it are refused.
    known : Table, optional
        The gates of another revision.

    Returns
    -------
    tuple
        The settings that can differ, in order; and one sentence for each arm that stands for several settings.

    Raises
    ------
    BadGate
        An unknown gate or value.
    """
    merged: dict[tuple[tuple[str, str], ...], list[dict[str, str]]] = {}
    for values in itertools.product(*swept.values()):
        asked = (known or gates.table()).canonical(dict(zip(swept, values, strict=True)), fast=fast)
        # A profile is an arm of its own name, though gates spelled out may do the same.
        settled = asked if asked.get("HAKMEM_PROFILE") else settle(asked, known)
        merged.setdefault(tuple(settled.items()), []).append(asked)
    sentences = [_sentence(dict(settled), asked) for settled, asked in merged.items() if len(asked) > 1]
    return [dict(settled) for settled in merged], sentences


def _sentence(settled: dict[str, str], asked: list[dict[str, str]]) -> str:
    """Say which gates an arm does not read: what varies among the settings it stands for."""
    free = {name: dict.fromkeys(one[name] for one in asked if name in one) for name in asked[0]}
    varying = [f"{name} {', '.join(values)}" for name, values in free.items() if len(values) > 1]
    what = " ".join(f"{name}={value}" for name, value in settled.items()) or "the defaults (speed first)"
    return f"{len(asked)} settings are one arm, {what}: it does not read {'; '.join(varying)}"
