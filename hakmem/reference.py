"""The figures that were published for hakmem before this workbench existed, to stand beside what is measured here.

They come from another machine: compare ratios and signs, not values.
"""

from collections.abc import Mapping
from functools import lru_cache

import pandas as pd

from hakmem import paths
from hakmem.errors import BadParameter, did_you_mean

__all__ = ["beside", "figure", "figures"]


@lru_cache(maxsize=1)
def _all() -> pd.DataFrame:
    return pd.read_csv(paths.reference() / "user_figures.csv")


def figures(study: str) -> pd.DataFrame:
    """Return the published figures of a study: columns metric, setting, value, unit.

    Raises
    ------
    BadParameter
        Nothing was published for it; the message lists the studies.
    """
    known = _all()
    mine = known[known["study"] == study]
    if mine.empty:
        names = list(dict.fromkeys(known["study"]))
        raise BadParameter(
            f"no published figures of {study!r}{did_you_mean(study, names)}; there are {', '.join(names)}"
        )
    return mine[["metric", "setting", "value", "unit"]].reset_index(drop=True)


def figure(study: str, metric: str, setting: str) -> float:
    """Return one published figure.

    Raises
    ------
    BadParameter
        It was not published; the message lists what was.
    """
    known = figures(study)
    found = known[(known["metric"] == metric) & (known["setting"] == setting)]
    if found.empty:
        names = [f"{m} of {s}" for m, s in zip(known["metric"], known["setting"], strict=True)]
        raise BadParameter(f"{study} has no published {metric} of {setting}; it has {', '.join(names)}")
    return float(found["value"].iloc[0])


def beside(
    study: str, today: Mapping[tuple[str, str], float | None], here: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Put today's figures beside the published ones.

    Parameters
    ----------
    study : str
    today : mapping of (metric, setting) to float or None
        What was measured here, in the unit of the published figure.
    here : mapping of setting to str, optional
        What stands for a published setting today, where that is not the same thing.

    Returns
    -------
    DataFrame
        One row for each key of `today`: metric, setting, published, today, ratio (today over published; None where
        one is 0, their signs differ, or nothing was measured), unit, here (the setting itself where none is named).

    Raises
    ------
    BadParameter
        A figure that was not published.
    """
    units = figures(study).set_index(["metric", "setting"])["unit"]
    records = []
    for (metric, setting), now in today.items():
        published = figure(study, metric, setting)
        ratio = now / published if now is not None and now * published > 0 else None
        line = {"metric": metric, "setting": setting, "published": published, "today": now, "ratio": ratio}
        records.append(line | {"unit": units[(metric, setting)], "here": (here or {}).get(setting, setting)})
    return pd.DataFrame(records, columns=["metric", "setting", "published", "today", "ratio", "unit", "here"])
