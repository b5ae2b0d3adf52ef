"""Builds the native module, and marks the wheel as what it is.

That is one binary for every CPython from 3.11 on, on machines whose glibc is no older than what it needs.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NO_SOURCES = """causeway: {directory} has neither the native module _causeway.abi3.so nor the Swift sources to build it from:
clone the whole repository, and build from its folder `python`."""
NO_BUILD = """causeway: the native module could not be built: what was missing is said above. `make native` in {directory}
does the same. It takes Swift, the C library's and libstdc++'s headers, and those of Python and Erlang."""
NO_SDIST = """causeway: there is no source distribution. The native module is built from the Swift sources, which are not in
this folder but beside it: make a wheel (`pip wheel ./python`), or install from a clone of the repository."""


class NativeModule(BuildHookInterface):
    def initialize(self, version, build_data):
        if self.target_name == "sdist":
            sys.exit(NO_SDIST)
        library = Path(self.root) / "_causeway.abi3.so"
        build(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform(library)}"


def build(library: Path) -> None:
    """Has `make` build what is out of date. A module that is there is taken as it is where there is no Swift."""
    top = library.parent.parent
    if not (top / "Package.swift").exists():
        if not library.exists():
            sys.exit(NO_SOURCES.format(directory=library.parent))
        return
    if library.exists() and (os.environ.get("CAUSEWAY_MAKE") or not shutil.which("swift")):
        return
    # Who installs a package does not expect that packages of the system come with it.
    if subprocess.run(["make", "-C", top, "native"], env=os.environ | {"CAUSEWAY_INSTALL": "no"}).returncode != 0:
        sys.exit(NO_BUILD.format(directory=top))


def platform(library: Path) -> str:
    """The tag of the oldest glibc that has all symbols which the module refers to."""
    machine = sysconfig.get_platform().rpartition("-")[2]
    needed = re.findall(rb"\0GLIBC_2\.(\d+)(?=\0)", library.read_bytes())
    return f"manylinux_2_{max(map(int, needed))}_{machine}" if needed else f"linux_{machine}"
