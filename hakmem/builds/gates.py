"""The ENV gates: `native/src/gates.def` as a validated model.

The allocator includes that file, this module parses the same lines, and nothing else lists gates. A setting is checked
here before anything runs: an unknown gate or a value it does not take is a `BadGate` that names gate, value and what is
allowed. Names may be given with or without ``HAKMEM_`` and in any case; what comes out is canonical: the environment
variables as keys in the order of `gates.def`, and the values as the allocator reads them.

``python -m hakmem.builds.gates`` writes `docs/gates.md`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from hakmem import paths
from hakmem.errors import BadGate, did_you_mean

__all__ = ["Gate", "Profile", "Settings", "Table", "canonical", "effective", "expand", "markdown", "parse", "table"]

PREFIX = "HAKMEM_"
SCOPES = {
    "CORE": "in every build",
    "DUMP": "statistics; compiled out of FAST",
    "RESEARCH": "for studies; compiled out of FAST",
    "BENCH": "read by the benchmark drivers, not by the allocator",
}
_IN_FAST = ("CORE", "BENCH")
_PATH = r'/[^"\\\x00-\x1f\x7f]{0,990}'
_PATHS = {"DIR": re.compile(_PATH), "FILE": re.compile(rf"{_PATH}|[0-9]{{1,6}}")}


class Gate(BaseModel):
    """One ``GATE`` line.

    Attributes
    ----------
    name
        Name without ``HAKMEM_``.
    type
        ``BOOL`` ("0 1"), ``INT`` ("lo..hi"), ``ENUM`` ("A B C"), ``PROFILE`` (the name of a profile, or empty),
        ``DIR`` (an absolute path, or empty) or ``FILE`` (the same, or the number of a descriptor).
    default
        What an unset variable means.
    allowed
        The choices in order, or the two ends of the range.
    scope
        ``CORE``, ``DUMP``, ``RESEARCH`` or ``BENCH``, see `SCOPES`.
    doc
        One line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    type: Literal["BOOL", "INT", "ENUM", "PROFILE", "FILE", "DIR"]
    default: str
    allowed: tuple[str, ...]
    scope: Literal["CORE", "DUMP", "RESEARCH", "BENCH"]
    doc: str

    @property
    def env(self) -> str:
        """The environment variable."""
        return PREFIX + self.name

    @property
    def allowed_text(self) -> str:
        """What the gate takes, in words."""
        if self.type == "INT":
            return f"an integer from {self.allowed[0]} to {self.allowed[1]}"
        return " or ".join(self.allowed)

    @model_validator(mode="after")
    def _default_is_allowed(self) -> Self:
        if self.type == "INT" and len(self.allowed) != 2:
            raise ValueError('an INT gate needs its range as "lo..hi"')
        if self.type != "PROFILE":
            self.value(self.default)
        return self

    def value(self, given: object) -> str:
        """Return the canonical text of a value.

        YAML reads an unquoted OFF as false, so False means OFF for a gate that has it, and 0 for a BOOL.

        Parameters
        ----------
        given
            Text, an integer or a boolean.

        Raises
        ------
        BadGate
            If the gate does not take this value.
        """
        text = str(given).strip() if isinstance(given, str | int) and not isinstance(given, bool) else None
        if isinstance(given, bool):
            words = {"BOOL": ("0", "1"), "ENUM": ("OFF", "ON")}.get(self.type)
            text = words[given] if words else None
        if self.type == "INT":
            low, high = map(int, self.allowed)
            if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text) and low <= int(text) <= high:
                return str(int(text))
        elif text is not None:
            choices = {choice.casefold(): choice for choice in self.allowed}
            if text == "" and self.type in ("PROFILE", *_PATHS):
                return ""
            if self.type in _PATHS and _PATHS[self.type].fullmatch(text):
                return text
            if text.casefold() in choices:
                return choices[text.casefold()]
        raise BadGate(f"{self.env}={given!s} is not allowed: it takes {self.allowed_text}")


class Profile(BaseModel):
    """One ``PROFILE`` line: a preset that sets only what the user has not set."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    settings: dict[str, str]
    doc: str


class Table(BaseModel):
    """All gates and profiles, in the order of `gates.def`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    gates: tuple[Gate, ...]
    profiles: tuple[Profile, ...]

    def gate(self, name: str) -> Gate:
        """Find a gate by its name, with or without ``HAKMEM_`` and in any case.

        Raises
        ------
        BadGate
            If there is none; the message suggests the closest name and lists all.
        """
        bare = name.strip().upper().removeprefix(PREFIX)
        for gate in self.gates:
            if gate.name == bare:
                return gate
        names = [gate.name for gate in self.gates]
        raise BadGate(f"unknown gate {name!r}{did_you_mean(bare, names)}; the gates are {', '.join(names)}")

    def canonical(self, settings: Mapping[str, object], *, fast: bool = False) -> dict[str, str]:
        """Validate settings; see the module's function of this name."""
        found: dict[str, str] = {}
        for name, given in settings.items():
            gate = self.gate(str(name))
            value = gate.value(given)
            if found.setdefault(gate.env, value) != value:
                raise BadGate(f"{gate.env} is given twice, as {found[gate.env]} and as {value}")
            if fast and gate.scope not in _IN_FAST:
                raise BadGate(f"{gate.env} has no effect here: {gate.scope} gates are compiled out of the FAST build")
        return {gate.env: found[gate.env] for gate in self.gates if gate.env in found}

    def expand(self, settings: Mapping[str, object]) -> dict[str, str]:
        """Add what the profile sets; see the module's function of this name."""
        given = self.canonical(settings)
        chosen = given.get(PREFIX + "PROFILE")
        presets = [self.canonical(profile.settings) for profile in self.profiles if profile.name == chosen]
        return self.canonical(presets[0] | given) if presets else given

    def effective(self, settings: Mapping[str, object]) -> dict[str, str]:
        """Every gate's value; see the module's function of this name."""
        return {gate.env: gate.default for gate in self.gates} | self.expand(settings)


_STRING = r'"((?:[^"\\]|\\.)*)"'
_GATE = re.compile(rf"GATE\(\s*(\w+)\s*,\s*(\w+)\s*,\s*{_STRING}\s*,\s*{_STRING}\s*,\s*(\w+)\s*,\s*{_STRING}\s*\)")
_PROFILE = re.compile(rf"PROFILE\(\s*(\w+)\s*,\s*{_STRING}\s*,\s*{_STRING}\s*\)")


@lru_cache(maxsize=8)
def parse(text: str) -> Table:
    """Parse the text of a `gates.def`.

    Parameters
    ----------
    text
        The file: C comments, ``GATE(...)`` and ``PROFILE(...)`` lines, nothing else.

    Returns
    -------
    Table
        Checked: every default is allowed, every profile sets known gates to allowed values, no name stands twice.

    Raises
    ------
    BadGate
        If a line is malformed; the message names the line.
    """
    gate_rows: list[tuple[int, tuple[str, ...]]] = []
    profiles: list[Profile] = []
    # Comments go, their line breaks stay: messages count lines.
    bare = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.DOTALL)
    for number, line in enumerate(map(str.strip, bare.splitlines()), start=1):
        if gate := _GATE.fullmatch(line):
            gate_rows.append((number, gate.groups()))
        elif profile := _PROFILE.fullmatch(line):
            name, presets, doc = profile.groups()
            settings = dict(pair.split("=", 1) for pair in presets.split() if "=" in pair)
            if len(settings) != len(presets.split()):
                raise BadGate(f"gates.def line {number}: a profile is a list of NAME=VALUE, not {presets!r}")
            profiles.append(Profile(name=name, settings=settings, doc=doc))
        elif line:
            raise BadGate(f"gates.def line {number} is neither a GATE nor a PROFILE line: {line}")
    gates = tuple(_gate(number, row, profiles) for number, row in gate_rows)
    found = Table(gates=gates, profiles=tuple(profiles))
    for entries in (found.gates, found.profiles):
        names = [entry.name for entry in entries]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BadGate(f"gates.def lists {', '.join(sorted(twice))} twice")
    for preset in profiles:
        found.canonical(preset.settings)
    return found


def _gate(number: int, row: tuple[str, ...], profiles: list[Profile]) -> Gate:
    """Build one gate from the fields of its line."""
    name, kind, default, allowed, scope, doc = row
    choices = [allowed] if kind in _PATHS else allowed.split(".." if kind == "INT" else None)
    if kind == "PROFILE":
        choices = [profile.name for profile in profiles]
    fields = {"name": name, "type": kind, "default": default, "allowed": choices, "scope": scope, "doc": doc}
    try:
        return Gate.model_validate(fields)
    except (ValidationError, BadGate, ValueError) as error:
        detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise BadGate(f"gates.def line {number}, gate {name}: {detail}") from error


def table(path: Path | None = None) -> Table:
    """Return the gates of this checkout, or of another `gates.def`."""
    return parse((path or paths.gates_def()).read_text(encoding="utf-8"))


def canonical(settings: Mapping[str, object], *, fast: bool = False) -> dict[str, str]:
    """Validate gate settings and write them the one way they are stored and exported.

    Parameters
    ----------
    settings
        Gate names (with or without ``HAKMEM_``, any case) to values (text, integer, boolean).
    fast
        Whether they are for the FAST build; gates compiled out of it are then refused.

    Returns
    -------
    dict of str to str
        Environment variables to set, in the order of `gates.def`. Nothing is added that was not asked for.

    Raises
    ------
    BadGate
        For an unknown gate, a value it does not take, or one gate with two values.
    """
    return table().canonical(settings, fast=fast)


def expand(settings: Mapping[str, object]) -> dict[str, str]:
    """Write out what ``HAKMEM_PROFILE`` stands for; a gate the user has set keeps the user's value."""
    return table().expand(settings)


def effective(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the value of every gate under these settings: the default, else the profile's, else the user's.

    Parameters
    ----------
    settings
        As for `canonical`.

    Returns
    -------
    dict of str to str
        One entry for every gate, in the order of `gates.def`.
    """
    return table().effective(settings)


Settings = Annotated[dict[str, str], BeforeValidator(canonical)]
"""Field type for pydantic models: canonical gate settings."""


def markdown(gates: Table) -> str:
    """Render the reference page `docs/gates.md`."""
    lines = [
        "# The gates",
        "",
        "<!-- Generated from native/src/gates.def by `make generated`; a test fails on drift. -->",
        "",
        "Environment variables of the allocator, each read once. A value that is not allowed prints one line that",
        "names the gate, the value and what is allowed, and the default holds; under the workbench it is an error",
        "before anything runs.",
    ]
    for scope, meaning in SCOPES.items():
        lines += ["", f"## {scope}: {meaning}", "", "| gate | values | default | meaning |", "|---|---|---|---|"]
        for gate in gates.gates:
            if gate.scope == scope:
                values = f"{gate.allowed[0]} to {gate.allowed[1]}" if gate.type == "INT" else ", ".join(gate.allowed)
                lines.append(f"| `{gate.env}` | {values} | {gate.default or 'unset'} | {gate.doc} |")
    lines += ["", "## Profiles", "", "`HAKMEM_PROFILE` sets only the gates that the user has not set.", ""]
    lines += ["| profile | sets | meaning |", "|---|---|---|"]
    for profile in gates.profiles:
        presets = ", ".join(f"`{name}={value}`" for name, value in gates.canonical(profile.settings).items())
        lines.append(f"| `{profile.name}` | {presets} | {profile.doc} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (paths.root() / "docs" / "gates.md").write_text(markdown(table()), encoding="utf-8")
