"""Synthetic ledgers with known answers, built from real `Trial` records so that they keep the row contract."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from hakmem.store import Trial, frame

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def trial(arm: str, role: str, workload: str, block: int, mops: float, peak_mb: float, **changes: Any) -> Trial:
    """One good trial; `changes` replace any field."""
    kb, ops = int(peak_mb * 1024), int(changes.pop("ops", 20_000_000))
    end_kb = int(changes.pop("end_mb", peak_mb) * 1024)
    seconds = ops / (mops * 1e6)
    family = arm.split(" ")[0]
    gates = changes.pop("gates", {})
    fields: dict[str, Any] = {
        **{
            "study": "synthetic",
            "trial_key": f"{arm}/{role}/{workload}/{block}",
            "provenance": "p1",
            "host": "bench-1",
        },
        **{"block": block, "position": 0, "order": 0, "arm": arm, "role": role, "allocator": family, "version": "1.0"},
        **{"linkage": "preload", "build": "b1", "gates": gates, "effective_gates": gates or None, "workload": workload},
        **{"argv": ("bench", workload), "status": "ok", "exit_status": 0, "started": START + timedelta(seconds=block)},
        **{"wall_s": seconds + 0.1, "user_s": seconds, "sys_s": 0.0, "ops": ops, "seconds": seconds},
        **{"ops_per_s": mops * 1e6, "peak_rss_kb": kb, "start_rss_kb": 1400, "end_rss_kb": end_kb},
        **{"end_lazyfree_kb": 0, "syscalls_per_op": 1e-7, "syscalls": {"mmap": 2}, "counters": {"os_alloc": 7}},
        "phases": (
            {"name": "warm", "t_s": 0.05, "rss_kb": kb - 40, "lazyfree_kb": 0},
            {"name": "done", "t_s": 0.05 + seconds, "rss_kb": end_kb, "lazyfree_kb": 0},
        ),
    }
    return Trial.model_validate(fields | changes)


LEAN = {"HAKMEM_SS_MEM_LEAN": "1", "HAKMEM_SS_MEM_LEAN_DECOMMIT": "DONTNEED", "HAKMEM_SS_MEM_LEAN_TARGET_MB": "10"}
# arm, role, Mops/s and MB as a share of the baseline's, gates
ARMS: tuple[tuple[str, str, float, float, dict[str, str]], ...] = (
    ("hakmem", "baseline", 1.0, 1.0, {}),
    ("hakmem", "baseline2", 1.0, 1.0, {}),
    ("hakmem LEAN DONTNEED 10 MB", "arm", 0.96, 0.25, LEAN),
    ("hakmem LEAN DONTNEED 32 MB", "arm", 0.985, 0.9, LEAN | {"HAKMEM_SS_MEM_LEAN_TARGET_MB": "32"}),
    ("hakmem LEAN FREE 10 MB", "arm", 0.97, 0.27, LEAN | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "FREE"}),
    ("hakmem LEAN OFF", "arm", 1.005, 0.85, LEAN | {"HAKMEM_SS_MEM_LEAN_DECOMMIT": "OFF"}),
    ("system", "peer", 0.8, 0.06, {}),
    ("mimalloc", "peer", 0.97, 0.08, {}),
    ("jemalloc", "peer", 0.9, 0.12, {}),
    ("tcmalloc", "peer", 0.95, 0.22, {}),
)
WORKLOADS = {
    "mixed:ws=400": (110.0, 33.0),
    "mixed:ws=100000": (70.0, 90.0),
    "ramp": (40.0, 165.0),
    "phases": (20.0, 220.0),
}


def study(
    blocks: int = 8, seed: int = 1, cv: float = 0.01, arms: Sequence[tuple[Any, ...]] = ARMS, **changes: Any
) -> list[Trial]:
    """A whole study: every arm on every workload, with multiplicative noise, orders counterbalanced."""
    rng = np.random.default_rng(seed)
    found: list[Trial] = []
    for block in range(blocks):
        for workload, (mops, mb) in WORKLOADS.items():
            for position, index in enumerate(rng.permutation(len(arms))):
                arm, role, speed, memory, gates = arms[index]
                figures = (
                    mops * speed * np.exp(cv * rng.standard_normal()),
                    mb * memory * np.exp(0.002 * rng.standard_normal()),
                )
                counters = {"os_alloc": 7, "madvise": 300 if gates else 0} if arm.startswith("hakmem") else None
                detail = {"position": position, "order": len(found), "gates": gates, "counters": counters} | changes
                found.append(trial(arm, role, workload, block, *figures, **detail))
    return found


def rows(trials: Sequence[Trial]) -> pd.DataFrame:
    """The frame that `store.load` would give."""
    return frame(trials)
