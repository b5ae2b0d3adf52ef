"""`pip wheel ./python` and `pip install ./python`."""

import re
import shutil
import socket
import sys
import zipfile

import pytest
from conftest import ROOT, moved_away, pip, run

# Without Swift, where that is not one of the system's own programs.
SYSTEM_PATH = "/usr/bin:/bin"
no_swift_there = pytest.mark.skipif(
    shutil.which("swift", path=SYSTEM_PATH) is not None, reason="Swift is a program of the system"
)

INSTALLED = """
import importlib.metadata, sys
import erlang, erlang.cbor, erlang.packetstream, erlang.process, erlang.reactor, _causeway
for module in (erlang, _causeway):
    assert module.__file__.startswith(sys.prefix + "/"), module.__file__
assert importlib.metadata.version("causeway") == erlang.__version__
assert not importlib.metadata.requires("causeway")
assert not erlang.in_beam()
"""


def example():
    """That of the package's own README."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "python/README.md").read_text(), re.M | re.S)
    return block


def test_network_is_cut_off(offline):
    if not offline:
        pytest.skip("no network namespaces here: what is built may have used the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket; socket.create_connection({server.getsockname()})"
        run([sys.executable, "-c", connect], ROOT)
        run([*offline, sys.executable, "-c", connect], ROOT, fails=True)


def test_versions_agree(wheel):
    application = re.search(r'\{vsn, "([^"]+)"\}', (ROOT / "erlang/src/causeway.app.src").read_text())[1]
    package = re.search(r'^__version__ = "([^"]+)"$', (ROOT / "python/erlang/__init__.py").read_text(), re.M)[
        1
    ]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
    assert [package, newest, wheel.name.split("-")[1]] == [application] * 3


def test_all_is_in_the_wheel(wheel, checkout):
    sources = {
        str(path.relative_to(checkout / "python")) for path in (checkout / "python/erlang").rglob("*.py*")
    }
    sources = {name for name in sources if "__pycache__" not in name} | {"erlang/py.typed"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    (information,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert {name for name in names if not name.startswith(information)} == sources | {
        "_causeway.abi3.so",
        "_causeway.pyi",
    }
    assert f"{information}/licenses/LICENSE" in names
    assert "\nLicense-Expression: Apache-2.0\n" in metadata


def test_the_tag_is_what_auditwheel_says(wheel):
    tag = wheel.stem.split("-", 2)[2]
    assert tag.startswith("cp311-abi3-manylinux_2_")
    report = " ".join(run([sys.executable, "-m", "auditwheel", "show", wheel], wheel.parent).split())
    assert f'is consistent with the following platform tag: "{tag.removeprefix("cp311-abi3-")}"' in report


def test_it_works_in_a_clean_environment(wheel, checkout, repository, python, tmp_path):
    venv = tmp_path / "venv"
    run([python, "-m", "venv", venv], tmp_path)
    with moved_away(checkout, repository):
        installation = ["-m", "pip", "--disable-pip-version-check", "install", "--no-index", wheel]
        run([venv / "bin/python", *installation], tmp_path)
        run([venv / "bin/python", "-I", "-c", INSTALLED], tmp_path)
        run([venv / "bin/python", "-I", "-c", example()], tmp_path)
        assert "usage" in run([venv / "bin/python", "-I", "-m", "erlang.packetstream", "--help"], tmp_path)


@no_swift_there
def test_what_is_built_installs_without_swift(wheel, checkout, home, tmp_path):
    target = tmp_path / "site-packages"
    run([*pip("install", "--target", target), "./python"], checkout, HOME=home, PATH=SYSTEM_PATH)
    assert (target / "_causeway.abi3.so").read_bytes() == (checkout / "python/_causeway.abi3.so").read_bytes()


def test_an_editable_installation_is_the_checkout(wheel, checkout, home, tmp_path):
    target = tmp_path / "site-packages"
    run([*pip("install", "--target", target, "--editable"), "./python"], checkout, HOME=home, CAUSEWAY_MAKE=1)
    (link,) = target.glob("*.pth")
    assert link.read_text().strip() == str(checkout / "python")


@no_swift_there
def test_missing_swift_is_said(repository, home, tmp_path):
    run(["git", "clone", "--quiet", repository, "causeway"], tmp_path)
    said = run([*pip("wheel"), "causeway/python"], tmp_path, fails=True, HOME=home, PATH=SYSTEM_PATH)
    wanted = re.match(r"// swift-tools-version: (\S+)", (ROOT / "Package.swift").read_text())[1]
    assert f"Swift {wanted} or later must be on the PATH" in said
    assert "causeway: the native module could not be built" in said
    assert "Traceback" not in said


def test_missing_sources_are_said(repository, home, tmp_path):
    shutil.copytree(repository / "python", tmp_path / "python")
    said = run([*pip("wheel"), "./python"], tmp_path, fails=True, HOME=home)
    assert "neither the native module _causeway.abi3.so nor its Swift sources are here" in said


def test_there_is_no_source_distribution(repository, tmp_path):
    build = f"from hatchling.build import build_sdist; build_sdist({str(tmp_path)!r})"
    said = run([sys.executable, "-c", build], repository / "python", fails=True)
    assert "causeway: there is no source distribution" in said
    assert list(tmp_path.iterdir()) == []
