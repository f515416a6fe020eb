"""Maps: a residency with a known answer, in text and as charts; every command draws a real one."""

import re

import numpy as np
import pandas as pd
import pytest

from hakmem import residency
from hakmem.residency import PLACES, Residency
from hakmem.studies import atlas

CLASSES = [
    {"class": 1, "size": 16, "octave": 0, "blocks_cached": 10},
    {"class": 59, "size": 16384, "octave": 8, "blocks_cached": 0},
]


def unit(state: int, cls: int, pages: int, out: int, back: int = 0) -> int:
    return state | cls << 3 | ((1 << pages) - 1) << 9 | out << 25 | back << 41


def known() -> Residency:
    """SuperSlab 0 in units (two slabs, a run of two, one free, one warm), 3 kept, 4 decommitted, 5 and 6 a span."""
    units = [unit(2, 1, 4, 1024), unit(2, 59, 16, 2, 2), unit(3, 0, 16, 2, 1000), unit(4, 0, 15, 0)]
    units += [unit(1, 0, 8, 0), unit(1, 0, 2, 0)]
    used = 0b101111
    rows = [[0, 3 | used << 32, 0, *units, *[0] * 26], [3, 2, 0, *[unit(1, 0, 16, 0)] * 32], [4, 1, 0, *[0] * 32]]
    rows += [[5, 4 | 0xFFFFFFFF << 32, 3 << 20, *[unit(4, 0, 16, 0)] * 32], [6, 5, 0, *[unit(4, 0, 8, 0)] * 32]]
    metadata = {"bitmaps": {"bytes": 8192, "resident": 4096}}
    inside = {"classes": CLASSES, "map": rows, "page": 4096, "superslab": 2 << 20, "metadata": metadata}
    return residency.of_json({"residency": inside, "pid": 7}, "known")


def test_every_unit_has_its_place() -> None:
    found = known().places()
    expected = {
        **{"C0": (1, 16 / 1024, 16 / 1024), "M": (1, 64 / 1024, 32 / 1024), "warm pool": (1, 8 / 1024, 0)},
        **{"large": (2, 124 / 1024, (128 * 1024 - 1000) / 2**20), "direct": (64, 3, 3)},
        **{"free slabs": (27, 32 / 1024, 0), "kept": (32, 2, 0), "decommitted": (32, 0, 0)},
    }
    assert set(found.index) == set(expected)
    for place, figures in expected.items():
        assert found.loc[place, ["slabs", "resident_mb", "out_mb"]].tolist() == pytest.approx(figures), place
    assert found.loc["C0", "cached_mb"] * 2**20 == pytest.approx(160) and found.loc["M", "fill"] == 0.5


def test_the_map_in_text_has_a_letter_and_a_shade_a_slab() -> None:
    drawn = atlas.lines(known())
    assert [line[:14] for line in drawn] == ["    0  0.24 MB", "    3  2.00 MB", "    5  2.00 MB", "    6  1.00 MB"]
    assert drawn[0][16:] == "0MLL:w" + "." * 26 + "  ░▒██" + " " * 28
    assert "k" * 32 in drawn[1] and "D" * 32 in drawn[2]
    assert atlas.lines(known(), rows=1)[1:] == ["and 3 more SuperSlabs"]


def test_the_charts_say_what_they_show() -> None:
    figure = atlas.slabs(known(), "a program")
    assert [len(panel.light) > 1000 and panel.light != panel.dark for panel in figure.panels] == [True, True]
    assert "a program: 5.24 MB of slabs are resident, 3.17 MB of blocks are out of them" in figure.panels[0].alt
    assert (
        "Most free memory stands in kept: 2 MB" in figure.panels[1].alt and "C0 1, M 1, large 2" in figure.panels[0].alt
    )
    page = figure.html()
    assert page.count("<img alt=") == 2 and "<table" in page


def test_pages_of_any_allocator_have_a_map() -> None:
    drawn = atlas.pages([[64, 16], [65, 8], [4000, 4]], "mimalloc")
    assert "mimalloc: 0.109 MB, 58 % of each 64 KiB it touches" in drawn.alt
    assert "3 of 64 cells hold resident pages" in drawn.alt


def test_residency_over_time_names_its_peak() -> None:
    samples = pd.DataFrame({"t_s": np.arange(5) / 10} | {place: np.zeros(5) for place in PLACES})
    samples["C3"], samples["large"] = [1, 2, 3, 2, 1], [0, 0, 4, 0, 0.5]
    figure = atlas.over_time(samples, "a program")
    assert "at most 7 MB of slabs were resident, 1.5 MB at the end" in figure.panels[0].alt
    assert set(figure.table.columns) == {"t_s", "C3", "large"}
    assert re.search("C3 1 MB, large 0.5 MB", figure.panels[0].alt)
