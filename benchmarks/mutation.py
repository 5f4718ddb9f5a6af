"""How many small faults put into the code the tests find: `make mutation`.

A fault is one changed operator, constant, condition, keyword argument, assignment, result or
statement. A sample of the faults of each room is drawn; each is put in where a test runs its line,
and those tests are run: first those of the file itself, then the quickest. A fault that no test
runs into counts as survived. Names in annotations and the wording of errors are left alone.

Neither mutmut 3.8 nor cosmic-ray fits here. mutmut leaves every decorated function alone, which
are the properties, context managers and inference functions, and writes a function for each fault,
48 000 lines for `recording/` alone, each wrapped again by the type checks that the tests run under.
cosmic-ray starts Python anew for each fault, and torch, transformers and polars take seconds to
import. Here a process that has them imported is forked for each.
"""

from __future__ import annotations

import argparse
import ast
import collections
import copy
import difflib
import hashlib
import importlib
import importlib.machinery
import json
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest
from scipy import stats

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutation"
QUICK = [
    "-q", "-m", "not model and not browser and not long",
    "-W", "ignore::pytest.PytestAssertRewriteWarning",
]  # fmt: skip
WARM = (
    "torch", "transformers.models.llama.modeling_llama", "transformers.generation.utils", "polars",
    "pyarrow", "plotly.graph_objects", "scipy.stats", "sklearn.cluster", "sklearn.linear_model",
    "sklearn.metrics",
)  # fmt: skip
SECONDS = 20.0
"""Of tests from other files for each fault, by how long they take without one."""

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult, ast.And: ast.Or, ast.Or: ast.And, ast.Break: ast.Continue,
    ast.Continue: ast.Break,
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """A stretch of a file, in lines from 1 and bytes from 0, and what is put in its place."""

    path: str
    start: tuple[int, int]
    end: tuple[int, int]
    new: str
    statement: int
    at_import: bool

    def source(self) -> bytes:
        """Return the file with the fault in it."""
        lines = (ROOT / self.path).read_bytes().splitlines(keepends=True)
        (first, left), (last, right) = self.start, self.end
        changed = lines[first - 1][:left] + self.new.encode() + lines[last - 1][right:]
        return b"".join([*lines[: first - 1], changed, *lines[last:]])

    def diff(self) -> str:
        """Return what it changes."""
        before = (ROOT / self.path).read_text(encoding="utf-8").splitlines()
        after = self.source().decode().splitlines()
        return "\n".join(list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:])


def faults(path: Path) -> list[Fault]:
    """Return every fault of a file."""
    found: list[Fault] = []
    name = str(path.relative_to(ROOT))

    def visit(node: Any, statement: int, at_import: bool) -> None:
        if isinstance(node, ast.stmt):
            statement = node.lineno
        changes = [(node, new) for new in _changed(node)]
        test = getattr(node, "test", None)
        if isinstance(test, ast.Name | ast.Call | ast.Attribute) and not isinstance(
            node, ast.Assert
        ):
            changes.append((test, ast.UnaryOp(ast.Not(), test)))
        for old, new in changes:
            text = f"({ast.unparse(new)})" if isinstance(new, ast.expr) else ast.unparse(new)
            start, end = (old.lineno, old.col_offset), (old.end_lineno, old.end_col_offset)
            found.append(Fault(name, start, end, text, statement, at_import))
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in _children(node):
            visit(child, statement, at_import and not (function and child is not node.args))

    visit(ast.parse(path.read_bytes()), 0, True)
    return found


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what is looked at for faults inside a node."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Import | ast.ImportFrom | ast.Assert):
        return
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("Literal"):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return
    left_alone = ("annotation", "returns", "decorator_list", "ctx", "ops", "op")
    for name, value in ast.iter_fields(node):
        if name not in left_alone:
            yield from (each for each in (value if isinstance(value, list) else [value])
                        if isinstance(each, ast.AST))  # fmt: skip


def _changed(node: Any) -> Iterator[ast.AST]:
    """Yield the node with each of its faults."""

    def with_(**changes: Any) -> Any:
        other = copy.copy(node)
        vars(other).update(changes)
        return other

    def swapped(operator: ast.AST) -> Any:
        return SWAPS[type(operator)]()

    match node:
        case ast.Compare():
            for place, operator in enumerate(node.ops):
                yield with_(ops=[*node.ops[:place], swapped(operator), *node.ops[place + 1 :]])
        case ast.BinOp() | ast.AugAssign() | ast.BoolOp() if type(node.op) in SWAPS:
            yield with_(op=swapped(node.op))
        case ast.Break() | ast.Continue():
            yield swapped(node)
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.Constant(value=bool()):
            yield ast.Constant(not node.value)
        case ast.Constant(value=int() | float()):
            yield ast.Constant(node.value + 1)
        case ast.Constant(value=str()):
            yield ast.Constant(f"XX{node.value}XX")
        case ast.Call():
            for place, keyword in enumerate(node.keywords):
                if keyword.arg is not None:
                    yield with_(keywords=node.keywords[:place] + node.keywords[place + 1 :])
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()
        case ast.Return() | ast.Assign() if not isinstance(node.value, ast.Constant | None):
            if node.col_offset:  # not what a module names, types among it
                yield with_(value=ast.Constant(None))


def digests(tests: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each file of tests, and under "" that of all other code."""
    found, rest = {}, hashlib.sha256()
    every = [f for folder in ("skipviz", "tests") for f in sorted((ROOT / folder).rglob("*.py"))]
    for path in every:
        content = path.read_bytes()
        if not path.name.startswith("test_"):
            rest.update(content)
        elif any(path.is_relative_to(ROOT / each) for each in tests):
            found[str(path.relative_to(ROOT))] = hashlib.sha256(content).hexdigest()
    return {"": rest.hexdigest(), **found}


def look_again(tests: list[str]) -> None:
    """Run the tests without a fault, where they or the code changed since they last were."""
    known, now = BUILD / "digests.json", digests(tests)
    before = json.loads(known.read_text()) if known.exists() else {}
    if before.get("") != now[""]:
        before = {}
        (BUILD / "coverage").unlink(missing_ok=True)
        (BUILD / "seconds.json").write_text("{}")
    changed = [name for name, digest in now.items() if name and before.get(name) != digest]
    if not changed:
        return
    print(f"Running {len(changed)} files of tests without a fault", flush=True)
    code = forked(baseline, changed, seconds=3600, log=BUILD / "baseline.log")
    if code == 1:
        print(f"Tests that fail as it is are left out: see {BUILD / 'baseline.log'}.")
    elif code != 0:
        sys.exit(f"They cannot be run, or take more than an hour: see {BUILD / 'baseline.log'}.")
    known.write_text(json.dumps(before | now))


def baseline(tests: list[str]) -> int:
    """Run tests as they are; note what each took and which lines of the rooms it ran."""
    cover = coverage.Coverage(data_file=str(BUILD / "coverage"), source_pkgs=["skipviz"])
    cover.set_option("run:core", "ctrace")
    cover.load()
    seconds: dict[str, float] = collections.defaultdict(float)
    failing: set[str] = set()

    class Watch:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failing.add(report.nodeid)

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
            cover.switch_context(item.nodeid)
            began = time.monotonic()
            outcome = yield
            seconds[item.nodeid] += time.monotonic() - began
            cover.switch_context("")
            return outcome

    cover.start()
    code = pytest.main([*QUICK, *tests], plugins=[Watch()])
    cover.stop()
    cover.save()
    passing = {test: taken for test, taken in seconds.items() if test not in failing}
    before = json.loads((BUILD / "seconds.json").read_text())
    (BUILD / "seconds.json").write_text(json.dumps(before | passing))
    return int(code)


def mutated(fault: Fault, tests: list[str]) -> int:
    """Run tests with a fault put in where its file is imported."""
    path, text = ROOT / fault.path, fault.source()
    real = importlib.machinery.SourceFileLoader.get_data

    def get_data(loader: Any, name: str) -> bytes:
        if Path(name) == path:
            return text
        if Path(name).parent.parent == path.parent and Path(name).name.startswith(path.stem + "."):
            raise OSError("compiled without the fault")
        return real(loader, name)

    importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign]
    sys.dont_write_bytecode = True
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(BUILD / "hypothesis")
    return int(pytest.main([*QUICK, "-x", "--no-header", *tests]))


def forked(work: Callable[..., int], *arguments: Any, seconds: float, log: Path) -> int | None:
    """Do work in a child and return its exit status; None if it took longer.

    Seconds are of computing, since a machine that does other work is no fault.
    """
    sys.stdout.flush()
    child = os.fork()
    if not child:
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 5))
        code = 70
        try:
            code = work(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    end = time.monotonic() + 20 * seconds  # one that waits for ever computes nothing
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


class Chosen:
    """Which tests run a line, from the run without faults."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = json.loads((BUILD / "seconds.json").read_text())
        self.data = coverage.CoverageData(basename=str(BUILD / "coverage"))
        self.data.read()

    def tests(self, fault: Fault) -> list[str]:
        """Return the tests that run into a fault: those of its file, then the quickest."""
        if fault.at_import:  # whichever test imported the file first ran the line: any may tell
            found = {t for path in (fault.path, *importers(fault.path)) for t in self.of(path)}
        else:
            lines = {fault.statement, *range(fault.start[0], fault.end[0] + 1)}
            by_line = self.data.contexts_by_lineno(str(ROOT / fault.path))
            found = {test for line in lines for test in by_line.get(line, ())}
        ordered = sorted(found & self.seconds.keys(), key=lambda test: self.seconds[test])
        path = Path(fault.path)
        mirror = f"{Path('tests', *path.parts[1:-1], f'test_{path.stem}.py')}::"
        own = [test for test in ordered if test.startswith(mirror)]
        others, total = [], 0.0
        for test in ordered:
            total += 0 if test in own else self.seconds[test]
            if others and total > SECONDS:
                break
            others += [] if test in own else [test]
        return own + others

    def of(self, path: str) -> set[str]:
        """Return the tests that run any line of a file."""
        by_line = self.data.contexts_by_lineno(str(ROOT / path))
        return {test for tests in by_line.values() for test in tests}


def importers(path: str) -> list[str]:
    """Return the files of the package that import one."""
    module = ".".join(Path(path).with_suffix("").parts)
    return [
        str(other.relative_to(ROOT))
        for other in sorted((ROOT / "skipviz").rglob("*.py"))
        if f"from {module} import" in other.read_text(encoding="utf-8")
    ]


def main() -> None:
    """Print the share found, by room, and every fault that no test found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=100, help="faults of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tests", nargs="+", default=["tests"], help="those to choose from")
    parser.add_argument("paths", nargs="*", default=["analysis", "recording", "families"])
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in WARM:
        importlib.import_module(name)
    look_again(options.tests)
    chosen, outcomes = Chosen(), {}
    for room in options.paths:
        files = sorted((ROOT / "skipviz" / room).rglob("*.py"))
        every = [fault for file in files for fault in faults(file)]
        sample = random.Random(options.seed).sample(every, min(options.sample, len(every)))
        print(f"\n{room}: {len(sample)} of {len(every)} faults, seed {options.seed}", flush=True)
        outcomes[room] = collections.Counter()
        for number, fault in enumerate(sample, start=1):
            outcomes[room][outcome(fault, chosen)] += 1
            if not number % 10 or number == len(sample):
                report(room, outcomes[room])
    report("all", sum(outcomes.values(), collections.Counter()))


def outcome(fault: Fault, chosen: Chosen) -> str:
    """Return what became of a fault, and print it if no test found it."""
    tests = chosen.tests(fault)
    limit = 30 + 5 * sum(chosen.seconds[test] for test in tests)
    log = BUILD / "fault.log"
    code = forked(mutated, fault, tests, seconds=limit, log=log) if tests else 0
    found = {None: "timeout", 0: "survived"}.get(code, "killed")
    if found == "survived":
        print(f"\n{fault.path} ({len(tests)} tests)\n{fault.diff()}", flush=True)
    return found


def report(room: str, counts: collections.Counter[str]) -> None:
    """Print the share found, with its interval."""
    total, found = counts.total(), counts.total() - counts["survived"]
    low, high = stats.binomtest(found, total).proportion_ci(method="wilson")
    print(
        f"{room:12} killed {counts['killed']:4}  timeout {counts['timeout']:3}  survived "
        f"{counts['survived']:3}  found {found / total:.1%} (95% CI {low:.1%} to {high:.1%})",
        flush=True,
    )


if __name__ == "__main__":
    main()
