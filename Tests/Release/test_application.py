"""The application `causeway` as a dependency, and in releases."""

import shutil

import pytest
from conftest import BUILD_TIME, PROJECTS, ROOT, moved_away, pythons, run

REBAR3 = shutil.which("rebar3")
MIX = shutil.which("mix")
needs_mix = pytest.mark.skipif(MIX is None, reason="mix is not installed")


def project(name, directory):
    return shutil.copytree(PROJECTS / name, directory / name)


def depend(demo, dependency):
    with open(demo / "rebar.config", "a") as config:
        config.write(f"{{deps, [{dependency}]}}.\n")


def check(said, python, release):
    """The right versions, and Python's half of it from the release itself."""
    (line,) = (line for line in said.splitlines() if line.startswith("demo:"))
    _, version, executable, package = line.split(":")
    assert f'{{vsn, "{version}"}}' in (ROOT / "erlang/src/causeway.app.src").read_text()
    assert executable == str(python)
    assert package == str(release / f"lib/causeway-{version}/priv/python/erlang/__init__.py")


@pytest.fixture(scope="module")
def release(repository, offline, home, tmp_path_factory):
    """A release of an application whose dependency is fetched from git, away from where it was made."""
    directory = tmp_path_factory.mktemp("git")
    demo = project("rebar3", directory)
    depend(demo, f'{{causeway, {{git, "file://{repository}", {{branch, "main"}}}}}}')
    run([*offline, REBAR3, "release"], demo, timeout=BUILD_TIME, HOME=home)
    assert '{<<"causeway">>' in (demo / "rebar.lock").read_text()
    shutil.copytree(demo / "_build/default/rel/demo", directory / "release", symlinks=True)
    shutil.rmtree(demo)
    return directory / "release"


def test_a_release_with_the_dependency_from_git(release, repository, python, tmp_path):
    with moved_away(repository):
        start = [release / "bin/demo", "foreground", "-noinput", "-eval", "demo:check(), init:stop()."]
        check(run(start, tmp_path, HOME=tmp_path, CAUSEWAY_PYTHON=python), python, release)


@pytest.mark.parametrize("folder", [".", "erlang"])
def test_a_dependency_by_path(folder, wheel, checkout, offline, home, tmp_path):
    demo = project("rebar3", tmp_path)
    depend(demo, "causeway")
    (demo / "_checkouts").mkdir()
    (demo / "_checkouts/causeway").symlink_to(checkout / folder)
    run([*offline, REBAR3, "release"], demo, timeout=BUILD_TIME, HOME=home)
    release = shutil.copytree(demo / "_build/default/rel/demo", tmp_path / "release", symlinks=True)
    python = pythons()[-1][1]
    with moved_away(checkout, demo):
        start = [release / "bin/demo", "foreground", "-noinput", "-eval", "demo:check(), init:stop()."]
        check(run(start, tmp_path, HOME=home, CAUSEWAY_PYTHON=python), python, release)


def test_missing_sources_are_said(repository, home, tmp_path):
    shutil.copytree(repository / "erlang", tmp_path / "erlang")
    said = run([REBAR3, "compile"], tmp_path / "erlang", fails=True, HOME=home)
    assert "depend on the whole repository" in said


@needs_mix
@pytest.mark.parametrize("source", ["path", "git"])
def test_a_release_of_mix(source, wheel, checkout, repository, offline, home, tmp_path):
    demo = project("mix", tmp_path)
    dependency = checkout / "erlang" if source == "path" else f"file://{repository}"
    settings = {"HOME": home, "MIX_ENV": "prod", "MIX_REBAR3": REBAR3, "CAUSEWAY": dependency}
    if source == "git":
        run([MIX, "deps.get"], demo, **settings)
    run([*offline, MIX, "release"], demo, timeout=BUILD_TIME, **settings)
    release = shutil.copytree(demo / "_build/prod/rel/demo", tmp_path / "release", symlinks=True)
    python = pythons()[-1][1]
    with moved_away(checkout, repository, demo):
        start = [release / "bin/demo", "eval", "Demo.check()"]
        check(run(start, tmp_path, HOME=home, CAUSEWAY_PYTHON=python), python, release)
