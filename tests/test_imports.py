"""Imports: the text of other tools becomes the same allocations, and what cannot be read is named."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hakmem.errors import BadTrace
from hakmem.traces import imports, trace
from hakmem.traces.events import ALIGNED, CALLOC, FREE, MALLOC, REALLOC


def converted(tmp_path: Path, text: str, form: str | None = None) -> trace.Trace:
    (tmp_path / "source").write_text(text)
    imports.convert(tmp_path / "source", tmp_path / "x.trace", form)
    return trace.read(tmp_path / "x.trace")


def test_a_csv_becomes_a_trace(tmp_path: Path) -> None:
    text = (
        "op,id,size,thread,time\nmalloc,a,100,main,0.5\naligned,c,64,w,0.7\nmalloc,b,7,main,0.6\n"
        "realloc,a,300,w,0.8\nfree,b,,w,0.9\ncalloc,b,9,main,1e3\nfree,zz,0,main,2e3\n"
    )
    made = converted(tmp_path, text)
    assert made.events.tolist() == [
        (0, 0, MALLOC, 0, 100),
        (1, 0, MALLOC, 0, 7),
        (2, 1, ALIGNED, 4, 64),
        (0, 1, REALLOC, 0, 300),
        (1, 1, FREE, 0, 0),
        (1, 0, CALLOC, 0, 9),
    ]
    assert made.header.threads == 2
    assert made.header.origin.kind == "imported" and made.header.origin.parameters == {"source": "source"}
    assert made.header.origin.notes == {"frees_of_unknown_blocks": 1, "frees_not_seen": 0, "threads_folded": 0}


def test_a_csv_may_be_short(tmp_path: Path) -> None:
    made = converted(tmp_path, "malloc,1,100\nfree,1\nmalloc,1,8\nmalloc,1,9\n")
    assert made.events["op"].tolist() == [MALLOC, FREE, MALLOC, FREE, MALLOC]
    assert made.header.origin.notes["frees_not_seen"] == 1


def test_an_mtrace_becomes_a_trace(tmp_path: Path) -> None:
    text = (
        "= Start\n@ ./a.out:(main+0x1e)[0x401164] + 0x1a3b6a0 0x64\n@ ./a.out:[0x40116e] + 0x1a3b710 0x10\n"
        "@ ./a.out:[0x401181] < 0x1a3b6a0\n@ ./a.out:[0x401181] > 0x1a3b730 0xc8\n@ ./a.out:[0x1] - 0x1a3b710\n"
        "@ ./a.out:[0x1] + 0x1a3b6a0 0x5\n@ ./a.out:[0x1] - 0x77\n= End\n"
    )
    made = converted(tmp_path, text)
    assert made.events.tolist() == [
        (0, 0, MALLOC, 0, 100),
        (1, 0, MALLOC, 0, 16),
        (0, 0, REALLOC, 0, 200),
        (1, 0, FREE, 0, 0),
        (1, 0, MALLOC, 0, 5),
    ]
    assert made.header.origin.generator == "mtrace" and made.header.origin.notes["frees_of_unknown_blocks"] == 1


def test_what_glibc_itself_writes_is_read(tmp_path: Path) -> None:
    source = tmp_path / "a.c"
    source.write_text(
        "#include <mcheck.h>\n#include <stdlib.h>\nint main(void) { mtrace(); char *p = malloc(111);"
        " char *q = calloc(3, 5); p = realloc(p, 22222); free(q); p[0] = 1; muntrace(); return 0; }\n"
    )
    subprocess.run(["cc", "-O0", source, "-o", tmp_path / "a"], check=True)
    debug = subprocess.run(["sh", "-c", "ldconfig -p | grep -o '/.*libc_malloc_debug.so.0' | head -1"],
                           capture_output=True, text=True).stdout.strip()  # fmt: skip
    if not debug:
        pytest.skip("this C library has no libc_malloc_debug.so.0")
    env = {"MALLOC_TRACE": str(tmp_path / "text"), "LD_PRELOAD": debug, "PATH": "/bin"}
    subprocess.run([tmp_path / "a"], env=env, check=True)
    imports.convert(tmp_path / "text", tmp_path / "x.trace")
    made = trace.read(tmp_path / "x.trace").events
    assert [(op, size) for _, _, op, _, size in made.tolist()] == [
        (MALLOC, 111),
        (MALLOC, 15),
        (REALLOC, 22222),
        (FREE, 0),
    ]


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("malloc,1\n", None, "line 1: 'malloc,1' has no number where one belongs"),
        ("malloc,1,5\nfrob,1,5\n", None, "line 2: 'frob,1,5' is no op,id,size,thread,time"),
        ("malloc,,5\n", None, "is no op,id,size,thread,time"),
        ("malloc,1,5,a,1,2\n", None, "is no op,id,size,thread,time"),
        ("malloc,1,-5\n", None, "sizes are 0..2.47 bytes, not -5"),
        ("malloc,1,x\n", None, "has no number where one belongs"),
        ("malloc,1,5,a,nan\n", None, "has no number where one belongs"),
        (f"malloc,{'x' * 200_000},5\n", None, "field larger than field limit"),
        ("malloc,1,5,a,1\nmalloc,2,5\n", None, "some lines have a time and some have none"),
        ("", None, "holds no allocation in the format csv"),
        ("= Start\nhello\n", None, "line 2: 'hello' is no line of mtrace"),
        ("= Start\n@ a + 0x1 0xffffffffffffff\n", None, "is no line of mtrace"),
        ("= Start\n@ a > 0x1 0xf\n", None, "is no line of mtrace"),
        ("= Start\n@ a < 0x1\n@ a + 0x1 0x3\n", None, "line 3"),
        ("malloc,1,5\n", "mtrace", "line 1: 'malloc,1,5' is no line of mtrace"),
        ("malloc,1,5\n", "mtrase", "unknown format 'mtrase'; the formats are csv, mtrace"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, form: str | None, said: str) -> None:
    with pytest.raises(BadTrace, match=said):
        converted(tmp_path, text, form)
    assert not (tmp_path / "x.trace").exists()


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00" * 10)
    for name in ("none", "binary"):
        with pytest.raises(BadTrace, match=f"cannot read .*{name}"):
            imports.convert(tmp_path / name, tmp_path / "x.trace")


LINES = st.lists(
    st.sampled_from(["malloc,1,5", "free,1", "realloc,1,9", "aligned,2,7,t,1", "@ a + 0x1 0x5", "@ a - 0x1",
                     "@ a < 0x1", "@ a > 0x2 0x7", "= Start", "op,id", ",,,", "\x00", "malloc,1,1e9", '"', "+ 0x1"])
    | st.text(max_size=20),
    max_size=9,
)  # fmt: skip


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=LINES, form=st.sampled_from([None, "csv", "mtrace"]))
def test_any_text_is_a_trace_that_makes_sense_or_is_refused_in_words(
    tmp_path: Path, lines: list[str], form: str | None
) -> None:
    (tmp_path / "any").write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    try:
        imports.convert(tmp_path / "any", tmp_path / "x.trace", form)
    except BadTrace as refusal:
        assert "any" in str(refusal)
        return
    assert len(trace.read(tmp_path / "x.trace").events) > 0  # checks every event
