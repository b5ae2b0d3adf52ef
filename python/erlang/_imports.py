"""Changes to modules of the standard library, made when somebody imports them: few do. And what an import
that was interrupted leaves behind."""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import ModuleType

_changes: dict[str, Callable[[ModuleType], None]] = {}


def when_imported(name, change):
    """Call ``change(module)`` when a module has been executed; at once where that was before."""
    if name in sys.modules:
        change(sys.modules[name])
        return
    if not _changes:
        sys.meta_path.insert(0, _Finder)
    _changes[name] = change


def forget_orphans():
    """Forget the modules whose package is not there, since its import was interrupted.

    Imported anew, the package would take them for imported already, and would not have them as attributes.
    """
    for name in [name for name in sys.modules if "." in name]:
        if name.rpartition(".")[0] not in sys.modules:
            sys.modules.pop(name, None)


class _Finder:
    """Finds the modules that are to be changed as Python does, and has them changed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _changes:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _changes[name])
        return spec


class _Loader:
    """A loader that changes its module when it has executed it. Otherwise it is the other loader."""

    def __init__(self, loader, change):
        self._loader = loader
        self._change = change

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # From now on it is nobody's business that it was loaded in another way.
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._change(module)
