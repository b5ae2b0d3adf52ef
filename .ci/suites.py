"""What runs suites of tests share: `make test`, `make test-matrix`, `make test-sanitize`.

Suites leave JUnit reports, from which they are counted. What one prints comes when it has ended, and is in
its folder of the reports meanwhile.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".build/venvs"
REQUIREMENTS = ["python/requirements-test.txt", "erlang/examples/requirements.txt"]
PYTEST = ["-m", "pytest", "--quiet", "-p", "no:cacheprovider"]
OUTCOMES = ("passed", "failed", "skipped")
LINES, LINE = 14, 200  # how much of a failure is said at the end
NO_TESTS = 5  # pytest's exit status

# What Common Test reports beside the tests themselves.
FRAMEWORK = {"init_per_suite", "end_per_suite", "init_per_group", "end_per_group"}


@dataclass
class Result:
    name: str
    counts: dict[str, int]
    seconds: float
    failures: list[str]  # what failed and how, a few lines each

    def __str__(self) -> str:
        numbers = ", ".join(f"{number:4} {outcome}" for outcome, number in self.counts.items())
        return f"{self.name:15} {numbers}   ({self.seconds:.0f} s)"


class Suites:
    """Runs suites one by one or at once, and sums them up."""

    def __init__(self, reports: Path, limit: float | None, may_be_empty: bool = False):
        """Reports go to a folder that is made anew. A suite may take so many seconds, and has tests in it
        unless it may be empty.
        """
        self.reports = reports
        self.limit = limit
        self.may_be_empty = may_be_empty
        self.began = time.monotonic()
        self.running: dict[str, float] = {}  # when each suite has started
        shutil.rmtree(reports, ignore_errors=True)
        reports.mkdir(parents=True)

    def run(self, name: str, command: list, directory: Path = ROOT, **environment: object) -> Result:
        """Runs a suite that leaves JUnit reports in its folder of the reports, and counts its tests."""
        reports = self.reports / name
        reports.mkdir()
        say(f"== {name}: started")
        with (
            open(reports / "output", "w", errors="replace") as output,
            # Not below .build: paths of sockets must be short. Programs that tests kill leave theirs there.
            tempfile.TemporaryDirectory(prefix="causeway-test-", ignore_cleanup_errors=True) as temporary,
        ):
            own = environment | {"TMPDIR": temporary, "CAUSEWAY_MAKE": 1}
            settings = os.environ | {key: str(value) for key, value in own.items()}
            self.running[name] = time.monotonic()
            try:
                status = subprocess.run(
                    command,
                    cwd=directory,
                    env=settings,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=self.limit,
                ).returncode
            except subprocess.TimeoutExpired:
                output.write(f"{name}: not finished after {self.limit} seconds: ended\n")
                status = 1
        counts, failures = count(reports)
        if self.may_be_empty and status == NO_TESTS:
            status = 0
        elif not any(counts.values()):
            status = 1
        if status != 0 and counts["failed"] == 0:
            counts["failed"] = 1  # it broke off, or did not get as far as a test
            failures.append(broken_off(reports / "output"))
        result = Result(name, counts, time.monotonic() - self.running.pop(name), failures)
        say(f"== {name}\n{(reports / 'output').read_text(errors='replace').rstrip()}\n{result}")
        return result

    def pytest(self, name: str, interpreter: Path, *options: str) -> Result:
        """Runs the Python half's tests with a Python that has what they need."""
        junit = self.reports / name / "junit.xml"
        return self.run(
            name,
            [
                interpreter,
                "-m",
                "pytest",
                "--quiet",
                f"--junitxml={junit}",
                "-p",
                "no:cacheprovider",
                *options,
            ],
            directory=ROOT / "python",
            PYTHONPATH=ROOT / "python",
        )

    def common_test(
        self, name: str, interpreter: Path, *options: object, directory: Path = ROOT / "erlang", **environment
    ) -> Result:
        """Runs suites of Common Test in a node that embeds a Python."""
        # What rebar3 builds is not to be shared by two that run at once.
        base = ROOT / ".build/rebar3" / name
        # It leaves suites there that have gone, or are elsewhere now, and would run them.
        shutil.rmtree(base / "test/lib/causeway/test", ignore_errors=True)
        own = {
            "CAUSEWAY_PYTHON": interpreter,
            "CAUSEWAY_TEST_VENV": interpreter.parent.parent,
            "REBAR_BASE_DIR": base,
        }
        command = ["rebar3", "ct", "--logdir", self.reports / name, *options]
        return self.run(name, command, directory=directory, **own | environment)

    def tell_progress(self) -> None:
        """Says of each running suite for how long it has been, and where Common Test is."""
        for name, started in sorted(self.running.items()):
            output = (self.reports / name / "output").read_text(errors="replace")
            suites = [line.split()[1].rstrip(":") for line in output.splitlines() if "%%% " in line]
            say(f"   {name}: {time.monotonic() - started:.0f} s{f', {suites[-1]}' if suites else ''}")

    def sum_up(self, results: list[Result], skips: list[str] = ()) -> int:
        """Prints what came out, `N passed, N failed` as the last line, and keeps it. Returns a status."""
        print("", *results, *skips, sep="\n")
        passed, failed, skipped = (sum(result.counts[outcome] for result in results) for outcome in OUTCOMES)
        failures = [f"{result.name}: {failure}" for result in results for failure in result.failures]
        (self.reports / "failures").write_text("".join(f"{failure}\n" for failure in failures))
        if failures:
            print("", *failures, "", sep="\n")
        summary = f"{passed} passed, {failed} failed"
        (self.reports / "summary").write_text(summary + "\n")
        minutes, seconds = divmod(round(time.monotonic() - self.began), 60)
        print(f"{minutes} min {seconds} s in all; {skipped} skipped")
        print(summary)
        return 1 if failed or not passed else 0


def say(text: str) -> None:
    """Prints whole blocks: several suites may end at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def count(reports: Path) -> tuple[dict[str, int], list[str]]:
    """The outcomes of all tests, and what is to be said of those that failed."""
    counts = dict.fromkeys(OUTCOMES, 0)
    failures = []
    for report in reports.rglob("*.xml"):
        try:
            suites = list(ElementTree.parse(report).iter("testsuite"))
        except ElementTree.ParseError:
            counts["failed"] += 1  # it ended while writing
            failures.append(f"{report.relative_to(ROOT)}: not finished")
            continue
        for suite in suites:
            for case in suite.iter("testcase"):
                outcome, failure = outcome_of(case)
                if outcome:
                    counts[outcome] += 1
                if failure is not None:
                    failures.append(describe(suite, case, failure))
    return counts, failures


def broken_off(output: Path) -> str:
    last = output.read_text(errors="replace").splitlines()[-LINES:]
    return "\n    ".join(
        [f"the whole suite, see {output.relative_to(ROOT)}", *(line[:LINE] for line in last)]
    )


def outcome_of(case: ElementTree.Element) -> tuple[str | None, ElementTree.Element | None]:
    for kind in ("failure", "error"):
        if (failure := case.find(kind)) is not None:
            return "failed", failure
    if case.find("skipped") is not None:
        return "skipped", None
    return (None if case.get("name") in FRAMEWORK else "passed"), None


def describe(suite: ElementTree.Element, case: ElementTree.Element, failure: ElementTree.Element) -> str:
    """The name of the test, and the end of its failure: enough to know it by, wherever this is read."""
    name = ".".join(part for part in (case.get("classname") or suite.get("name"), case.get("name")) if part)
    text = f"{failure.get('message') or ''}\n{failure.text or ''}"
    lines = [line.rstrip()[:LINE] for line in text.splitlines() if line.strip()]
    return "\n    ".join([name, *lines[-LINES:]])


def pythons() -> list[tuple[str, str]]:
    """Names and executables of the Pythons to test with, oldest first, of ONLY_PYTHON where that is set."""
    listing = subprocess.run([ROOT / ".ci/find-pythons"], stdout=subprocess.PIPE, text=True)
    found = [tuple(line.split(" ", 1)) for line in listing.stdout.splitlines()]
    if only := os.environ.get("ONLY_PYTHON"):
        found = [(name, python) for name, python in found if f"{name}.".startswith(f"{only}.")]
    if listing.returncode != 0 or not found:
        sys.exit(f"no Python to test with{f': ONLY_PYTHON is {only}' if only else ''}")
    return found


def venv(name: str, python: str) -> Path:
    """The Python of a virtual environment with what tests need."""
    if subprocess.run([ROOT / ".ci/venv", name, python, *REQUIREMENTS]).returncode != 0:
        sys.exit(f"no virtual environment to test {python} in")
    return VENVS / name / "bin/python"
