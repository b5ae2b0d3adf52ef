"""Changes to modules of the standard library, made when somebody imports them: few do. And what an import
that was interrupted leaves behind."""

import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from types import ModuleType

_changes: dict[str, Callable[[ModuleType], None]] = {}
# Packages that are not imported, while modules of theirs are.
_orphaned: set[str] = set()


def when_imported(name, change):
    """Call ``change(module)`` when a module has been executed; at once where that was before."""
    if name in sys.modules:
        change(sys.modules[name])
        return
    if not _changes:
        sys.meta_path.insert(0, _Finder)
    _changes[name] = change


def keep_orphans():
    """Have packages whose import was interrupted take their modules back when they are imported again.

    Modules that were complete stay imported then, and Python would not make them attributes of the package.
    Nor can they be imported anew: others refer to their classes.
    """
    packages = {name.rpartition(".")[0] for name in list(sys.modules) if "." in name}
    _orphaned.update(packages - sys.modules.keys())
    if _orphaned and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    """Finds the modules that are to be changed as Python does, and has them changed."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in _changes and name not in _orphaned:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _changes.get(name))
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
        if module.__name__ in _orphaned:
            _take_back(module)
        self._loader.exec_module(module)
        if self._change is not None:
            self._change(module)


def _take_back(package):
    for name, module in list(sys.modules.items()):
        parent, _, own = name.rpartition(".")
        if parent == package.__name__ and module is not None:
            setattr(package, own, module)
    _orphaned.discard(package.__name__)
