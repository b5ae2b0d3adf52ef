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

NO_SOURCES = """causeway: neither the native module _causeway.abi3.so nor its Swift sources are here:
clone the whole repository, and build from its folder `python`."""
NO_BUILD = """causeway: the native module could not be built. What was missing is said above, and by
`make native` in {directory}. It takes Swift, and the headers of libc, libstdc++, Python and Erlang."""
NO_SDIST = """causeway: there is no source distribution, because the Swift sources are not in this folder:
make a wheel (`pip wheel ./python`), or install from a clone of the repository."""


class NativeModule(BuildHookInterface):
    def initialize(self, version, build_data):
        if self.target_name == "sdist":
            sys.exit(NO_SDIST)
        library = Path(self.root) / "_causeway.abi3.so"
        build(library)
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform(library)}"


def build(library: Path) -> None:
    """Has `make` build what is out of date. Without Swift, a module that is there is taken as it is."""
    top = library.parent.parent
    if not (top / "Package.swift").exists():
        if not library.exists():
            sys.exit(NO_SOURCES)
        return
    if library.exists() and (os.environ.get("CAUSEWAY_MAKE") or not shutil.which("swift")):
        return
    # Who installs a package does not expect that packages of the system come with it.
    settings = os.environ | {"CAUSEWAY_INSTALL": "no"}
    if subprocess.run(["make", "-C", top, "native"], env=settings).returncode != 0:
        sys.exit(NO_BUILD.format(directory=top))


def platform(library: Path) -> str:
    """The tag of the oldest glibc that has all symbols which the module refers to."""
    machine = sysconfig.get_platform().rpartition("-")[2]
    needed = re.findall(rb"\0GLIBC_2\.(\d+)(?=\0)", library.read_bytes())
    return f"manylinux_2_{max(map(int, needed))}_{machine}" if needed else f"linux_{machine}"
