import mmap
import os
import subprocess
import sys

import pytest

from hakmem.errors import BadParameter
from hakmem.system import mappings
from hakmem.system.mappings import PAGE


def test_pages_are_told_apart_by_whether_they_were_written() -> None:
    """Written pages are ours; a page that was only read is the zeros that all share, one never touched is nothing."""
    code = "import mmap, ctypes, sys; P = mmap.PAGESIZE; how = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS\n"
    code += "m = mmap.mmap(-1, 20 * P, flags=how)\n"
    code += "m[0:3*P] = b'x'*3*P; m[9*P] = 1; y = m[12*P]\n"
    code += "print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdin is not None
        start = int(child.stdout.readline())
        found = mappings.pages(child.pid, start, start + 20 * PAGE)
        assert found.tolist() == [True] * 3 + [False] * 6 + [True] + [False] * 10
        assert mappings.resident(child.pid, start, 20 * PAGE) == 4 * PAGE
        child.stdin.close()


def test_mappings_add_up_to_what_the_kernel_sums_up() -> None:
    with mmap.mmap(-1, 8 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as big:
        big.write(b"x" * len(big))
        found = mappings.smaps(os.getpid())
        with open("/proc/self/smaps_rollup") as file:
            rollup = dict(line.split(":") for line in file.read().splitlines()[1:])
    total = int(rollup["Rss"].split()[0])
    assert sum(one.rss_kb for one in found) == pytest.approx(total, rel=0.02)
    assert max(one.anonymous_kb for one in found if not one.path) >= 8 << 10
    stack = [one for one in found if one.path == "[stack]"]
    assert len(stack) == 1 and stack[0].start < stack[0].end and stack[0].rss_kb > 0
    executable = os.stat("/proc/self/exe").st_ino
    assert executable in mappings.files(os.getpid()).values() and executable in {one.inode for one in found}


def test_a_process_began_when_its_stat_says() -> None:
    first, second = mappings.start_ticks(os.getppid()), mappings.start_ticks(os.getpid())
    assert first is not None and second is not None and first <= second
    assert mappings.start_ticks(2**22 + 1) is None


def test_a_process_that_is_not_there_is_named() -> None:
    for look in (mappings.smaps, mappings.files, lambda pid: mappings.pages(pid, 0, PAGE)):
        with pytest.raises(BadParameter, match="there is no process 4194305"):
            look(2**22 + 1)
