"""Papermill in, one HTML file out.

A notebook runs in this very interpreter, over ipc (ports are raced for), with parameters that were checked before; a
notebook that fails is saved as far as it got. The page is made by a template of our own: one file that asks the network
for nothing.
"""

import ast
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import papermill
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from hakmem import paths, progress
from hakmem.errors import BadParameter, MissingTool, ReportFailed, did_you_mean
from hakmem.pages import document
from hakmem.studies.pipeline import FreePipelineSpec
from hakmem.studies.promotion import PromotionSpec
from hakmem.studies.reserve import ReserveSpec
from hakmem.studies.rss_tax import TaxSpec
from hakmem.studies.scorecard import ScoreSpec
from hakmem.studies.shapes import ShapesSpec
from hakmem.studies.soaks import SoakSpec
from hakmem.studies.start_up import StartUpSpec
from hakmem.study import CampaignSpec, Checked, GateSpec, RebaseSpec, TourSpec

__all__ = ["find", "html", "output_of", "own_kernel", "parameters", "render"]

Spec = TypeVar("Spec", bound=Checked)
MODELS: dict[str, type[Checked]] = {  # what checks the parameters of a notebook
    "00_start_here": TourSpec,
    "10_rss_tax": TaxSpec,
    "20_lean_sweep": CampaignSpec,
    "25_balanced_promotion": PromotionSpec,
    "30_soak": SoakSpec,
    "40_rebase": RebaseSpec,
    "50_gate_ab": GateSpec,
    "55_start_up": StartUpSpec,
    "60_reserve_and_magazines": ReserveSpec,
    "70_free_pipeline": FreePipelineSpec,
    "80_traces": ShapesSpec,
    "90_scorecard": ScoreSpec,
}
INTERPRETER = "WORKBENCH_PREFIX"  # tells the kernel which environment it must be


def render(notebook: str | Path, parameters: Mapping[str, object], output: Path) -> Path:
    """Execute a notebook and write its page; the executed notebook is kept beside it.

    Parameters
    ----------
    notebook : str or Path
        Name of a notebook of `notebooks/`, or a file.
    parameters : mapping
        Values for its parameters cell.
    output : Path
        The HTML file to write; the executed notebook gets the same name with `.ipynb`.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    BadParameter
        No such notebook, or a parameter it does not declare or take. Nothing was run.
    ReportFailed
        A cell failed; the notebook as far as it got, and its page, are saved.
    """
    source = find(notebook)
    check(source, parameters)
    output = Path(output).absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    executed = output.with_suffix(".ipynb")
    with _kernel() as kernel:
        shown = {"progress_bar": False, "cwd": str(paths.root()), "kernel_name": "python3"}
        try:
            papermill.execute_notebook(str(source), str(executed), dict(parameters), **shown, **kernel)
        except PapermillExecutionError as error:
            html(executed, output)
            where = f"{source.name} failed in cell {error.exec_count}"
            raise ReportFailed(f"{where}: {error.ename}: {error.evalue}; what it reached is in {executed}") from error
    return html(executed, output)


def find(notebook: str | Path) -> Path:
    """Find a notebook by its name in `notebooks/`, or by its path.

    Raises
    ------
    BadParameter
        There is none; the message lists those there are.
    """
    known = {path.stem: path for path in sorted(paths.notebooks().glob("*.ipynb"))}
    path = known.get(str(notebook).removesuffix(".ipynb"), Path(notebook))
    if not path.is_file():
        names = ", ".join(known)
        raise BadParameter(
            f"no notebook {str(notebook)!r}{did_you_mean(str(notebook), known)}; the notebooks are {names}"
        )
    return path.absolute()


def output_of(notebook: str | Path) -> Path:
    """Return the page of a notebook: ``reports/lean_sweep.html`` for ``20_lean_sweep``."""
    return paths.reports() / f"{Path(notebook).stem.lstrip('0123456789').lstrip('_') or 'report'}.html"


def check(notebook: Path, given: Mapping[str, object]) -> None:
    """Refuse parameters that a notebook does not declare, or whose values it does not take.

    Raises
    ------
    BadParameter
        One sentence for each.
    """
    declared = list(papermill.inspect_notebook(str(notebook)))
    _refuse_unknown(given, declared, notebook.name)
    if notebook.stem in MODELS:
        MODELS[notebook.stem].checked(given)


def _refuse_unknown(given: Mapping[str, object], declared: list[str], where: str) -> None:
    unknown = [f"{name!r}{did_you_mean(name, declared)}" for name in given if name not in declared]
    if unknown:
        raise BadParameter(f"{where} has no parameter {', '.join(unknown)}; its parameters are {', '.join(declared)}")


# ---- inside the kernel -----------------------------------------------------------------------------------------------


def own_kernel() -> str:
    """Make sure that the kernel is the interpreter that executes the notebook, not another of the same name.

    Raises
    ------
    MissingTool
        It is another; the message names both.
    """
    expected = os.environ.get(INTERPRETER, sys.prefix)
    if Path(expected).resolve() != Path(sys.prefix).resolve():
        raise MissingTool(f"the kernel runs in {sys.prefix}, but the workbench is installed in {expected}")
    return f"Python {sys.version.split()[0]} in {sys.prefix}"


def parameters(namespace: Mapping[str, Any], model: type[Spec]) -> Spec:
    """Check a notebook's parameters where it runs, whoever started it.

    Papermill injects unknown parameters with a mere warning, as a cell of assignments that begins with `# Parameters`.
    Every name which such a cell assigns must be a field of the model.

    Parameters
    ----------
    namespace : mapping
        The notebook's `globals()`.
    model : type of Checked
        What to make of them.

    Raises
    ------
    BadParameter
        A name the model does not know, or a value that it does not take.
    """
    fields = list(model.model_fields)
    injected = [name for cell in namespace.get("In", []) for name in _assigned(cell)]
    _refuse_unknown(dict.fromkeys(injected), fields, "this notebook")
    return model.checked({name: namespace[name] for name in fields if name in namespace})


def _assigned(cell: str) -> list[str]:
    """Names that a parameters cell assigns; none where the cell is of another kind."""
    if not cell.lstrip().startswith("# Parameters"):
        return []
    nodes = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [target for node in nodes for target in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


# ---- around the kernel -----------------------------------------------------------------------------------------------


class _ThisInterpreter(KernelSpecManager):
    """Knows one kernel, whatever it is called: the interpreter that asks."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Give the same answer to every name."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name=kernel_name, language="python")


class _Kernel(AsyncKernelManager):
    """A kernel in this interpreter; what it says outside of cells goes to a file beside its connection file."""

    async def start_kernel(self, **given: Any) -> None:  # type: ignore[override]
        """Start it."""
        with Path(self.connection_file).with_suffix(".err").open("ab") as said:
            await super().start_kernel(**given, stderr=said)

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _ThisInterpreter(parent=self)


@contextmanager
def _kernel() -> Iterator[dict[str, object]]:
    """Provide papermill's options for such a kernel, and show here what progress it hands on meanwhile.

    What the kernel itself has said follows, unless it was interrupted: then it tells how it was torn down.
    """
    with tempfile.TemporaryDirectory(prefix="hakmem-") as scratch:
        steps, over = Path(scratch, "progress.jsonl"), threading.Event()
        said = Path(scratch, "kernel.err")
        steps.touch()
        said.touch()
        handed = {INTERPRETER: sys.prefix, progress.FILE: str(steps)}
        before = {name: os.environ.get(name) for name in handed}
        os.environ.update(handed)
        watcher = threading.Thread(target=_watch, args=(steps, over), daemon=True)
        watcher.start()
        try:  # ipc sockets stand beside the connection file, and their paths must be short
            ways = {"transport": "ipc", "connection_file": str(Path(scratch, "kernel.json"))}
            yield {"kernel_manager_class": _Kernel, "config": Config({"KernelManager": ways})}
        except KeyboardInterrupt:
            said.write_text("interrupted; what was measured is kept, and the same command goes on from there\n")
            raise
        finally:
            over.set()
            watcher.join()
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
            sys.stderr.write(said.read_text(errors="replace"))


def _watch(steps: Path, over: threading.Event) -> None:
    """Show the steps that the kernel hands on until it is over."""
    shown: progress.Progress | None = None
    with steps.open(encoding="utf-8") as file:
        while True:
            last = over.wait(0.2)
            for line in file.readlines():
                step = json.loads(line)
                shown = shown or progress.show(here=True)
                shown.wait(step["waiting"]) if "waiting" in step else shown.step(**step)
            if last:
                break
    if shown:
        shown.close()


def html(executed: Path, output: Path) -> Path:
    """Write an executed notebook as one self-contained page.

    Raises
    ------
    ReportFailed
        The page would be larger than a page may be.
    """
    ours = {
        "extra_template_basedirs": [str(document.TEMPLATES)],
        "filters": {"glance": document.glance, "title": document.title},
    }
    exporter = HTMLExporter(template_name="page", **ours)  # type: ignore[no-untyped-call]
    body, _ = exporter.from_filename(str(executed))
    if len(body.encode()) > document.SIZE_LIMIT:
        size = f"{len(body.encode()) / 1e6:.1f} MB; {document.SIZE_LIMIT / 1e6:g} MB are allowed"
        raise ReportFailed(f"the page of {executed} would have {size}")
    output.write_text(body, encoding="utf-8")
    return output
