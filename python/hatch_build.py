"""Marks the wheel as what it is: one binary for every CPython from 3.11 on, on this platform."""

import sysconfig
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class StableAbiWheel(BuildHookInterface):
    def initialize(self, version, build_data):
        if not (Path(self.root) / "_causeway.abi3.so").exists():
            raise FileNotFoundError("_causeway.abi3.so: run `make build` first")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform}"
