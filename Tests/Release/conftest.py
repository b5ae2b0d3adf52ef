"""Wheels and releases are made from a copy of the checkout in which nothing is built, without network, and
used when that copy has been moved away. The environment has nothing of the checkout in it, either.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PROJECTS = Path(__file__).resolve().parent
BUILD_TIME = 900  # seconds


def run(command, cwd, timeout=120, fails=False, **environment):
    """What a command prints; it must succeed, or fail."""
    settings = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=settings | {name: str(value) for name, value in environment.items()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    assert (done.returncode != 0) == fails, f"{command} in {cwd}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def pythons():
    """Pairs of name and executable."""
    listing = subprocess.run([ROOT / ".ci/find-pythons"], stdout=subprocess.PIPE, text=True, check=True)
    return [line.split(" ", 1) for line in listing.stdout.splitlines()]


def pytest_generate_tests(metafunc):
    if "python" in metafunc.fixturenames:
        found = pythons()
        metafunc.parametrize("python", [path for _, path in found], ids=[name for name, _ in found])


@contextlib.contextmanager
def moved_away(*directories):
    moved = [(directory, directory.with_name(f"{directory.name}-away")) for directory in directories]
    for directory, away in moved:
        directory.rename(away)
    try:
        yield
    finally:
        for directory, away in moved:
            away.rename(directory)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A home without settings and caches."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def offline():
    """What a command is begun with that gets no network. Nothing, where the system does not allow that."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        return prefix if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0 else []
    except FileNotFoundError:
        return []


@pytest.fixture(scope="session")
def repository(tmp_path_factory):
    """A git repository with the files that the checkout has now."""
    copy = tmp_path_factory.mktemp("repository") / "causeway"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True).stdout
    for name in listed.split("\0"):
        if name and os.path.lexists(ROOT / name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    commit = ["-c", "user.name=causeway", "-c", "user.email=causeway@localhost", "commit", "-m", "All"]
    for command in (["init", "--initial-branch=main"], ["add", "."], commit):
        run(["git", *command], copy)
    return copy


@pytest.fixture(scope="session")
def checkout(repository, tmp_path_factory):
    """A clone to build in."""
    clone = tmp_path_factory.mktemp("checkout") / "causeway"
    run(["git", "clone", "--quiet", repository, clone], repository)
    return clone


@pytest.fixture(scope="session")
def wheel(checkout, offline, home, tmp_path_factory):
    """What `pip wheel` makes of a clone in which nothing is built."""
    directory = tmp_path_factory.mktemp("wheel")
    run(
        [*offline, *pip("wheel", "--wheel-dir", directory), "./python"],
        checkout,
        timeout=BUILD_TIME,
        HOME=home,
    )
    (made,) = directory.iterdir()
    return made


def pip(command, *options):
    """pip with what this virtual environment has to build with, and nothing from elsewhere."""
    common = ["--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation"]
    return [sys.executable, "-m", "pip", command, *common, *options]
