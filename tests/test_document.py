"""A page as a whole: what it is called, and what its first line says."""

from ledgers import rows, study
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from hakmem import verdict
from hakmem.pages import document, page


def test_a_page_is_called_what_its_first_heading_says() -> None:
    code, words = new_code_cell("# no heading"), new_markdown_cell("In words.\n# Does it pay?\n")
    notebook = new_notebook(cells=[code, words, new_markdown_cell("# Other")])
    assert document.title(notebook) == "Does it pay?" and document.title(new_notebook()) == ""


def test_a_page_is_one_file_that_asks_for_nothing() -> None:
    text = document.page("a <b>", "<p>body</p>")
    assert text.count("a &lt;b&gt;") == 2 and "default-src 'none'" in text and "<p>body</p>" in text and "--ink" in text


def test_the_first_line_is_the_verdict_or_the_failure() -> None:
    found = page.banner(verdict.lean(rows([one for one in study(blocks=3) if one.workload == "ramp"])))
    judged = new_code_cell("1", outputs=[new_output("display_data", data=found._repr_mimebundle_())])
    line = document.glance(new_notebook(cells=[judged]))
    assert line.startswith('<p class="glance"><a href="#verdict">') and "throughput" in line
    failed = new_code_cell("2", outputs=[new_output("error", ename="ValueError", evalue="<oh>", traceback=[])])
    line = document.glance(new_notebook(cells=[judged, failed]))
    assert '<a href="#failed">' in line and document.FAILED in line and "ValueError: &lt;oh&gt;" in line
    assert document.glance(new_notebook(cells=[new_code_cell("1")])) == ""
