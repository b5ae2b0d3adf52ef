"""Virtual environments of an interpreter that runs already: what an activated one has, and back again.

Imported by the first call of ``py:activate_venv`` and its like. All state is that of one interpreter.
"""

import importlib
import os
import re
import site
import sys
import sysconfig
import threading
from contextlib import ExitStack

from erlang import atom

_CONFIGURATION = "pyvenv.cfg"

# Reentrant: a .pth file may import what calls Erlang, which may activate again on this very thread.
_lock = threading.RLock()
_active = None


class _Activation:
    """A virtual environment, and how to take it back."""

    def __init__(self, directory):
        self.directory = directory
        self.undo = ExitStack()
        # What site.addsitedir has added already, in its own form.
        self.known = set()
        # Where the packages of the Python that runs are, whose place in sys.path is after ours.
        self.behind = {*site.getsitepackages(), site.getusersitepackages()}


def activate(directory):
    """Make a virtual environment the active one of this interpreter, instead of the one that is.

    Returns ``ok`` or ``(error, (reason, text))`` for Erlang. What goes wrong after the checks is raised, and
    no environment is active then.
    """
    global _active
    directory = os.path.abspath(os.fsdecode(directory))
    with _lock:
        problem = _problem(directory)
        if problem is not None:
            return atom("error"), problem
        if _active is not None and _active.directory == directory:
            # What was installed meanwhile is found, too.
            _add_site_directories(_active)
        else:
            deactivate()
            activation = _Activation(directory)
            try:
                _enter(activation)
                _active = activation
            except BaseException:  # an interruption as well: half of an environment would stay
                _active = None
                activation.undo.close()
                raise
        importlib.invalidate_caches()
    return atom("ok")


def resume(directory):
    """Make the environment of the pool the active one, unless another context has done so here.

    Returns as :func:`activate` does.
    """
    with _lock:
        if _active is not None and _active.directory == os.path.abspath(os.fsdecode(directory)):
            return atom("ok")
        return activate(directory)


def deactivate():
    """Take back all that the activation has changed, but what others have changed since then.

    Modules that were imported stay.
    """
    global _active
    with _lock:
        if _active is not None:
            # In this order: what an interruption leaves undone is done by the next try.
            _active.undo.close()
            _active = None
    return atom("ok")


def info():
    """What ``py:venv_info`` shows; paths are bytes, since not all of them are text."""
    active = sys.prefix != sys.base_prefix
    path = os.fsencode(sys.prefix) if active else None
    packages = _site_directories(sys.prefix)[0] if active else sysconfig.get_path("purelib")
    return {
        "active": active,
        "path": path,
        # The name that erlang_python has for it.
        "venv_path": path,
        "prefix": os.fsencode(sys.prefix),
        "base_prefix": os.fsencode(sys.base_prefix),
        "executable": os.fsencode(sys.executable),
        "base_executable": os.fsencode(getattr(sys, "_base_executable", None) or sys.executable),
        "site_packages": os.fsencode(packages),
        "version": ".".join(map(str, sys.version_info[:3])),
    }


def _problem(directory):
    """Why a directory cannot be activated: a pair of an atom and a text, or None."""
    settings = _settings(directory)
    if settings is None or not os.access(_executable(directory), os.X_OK):
        return atom("not_a_venv"), (
            f"{directory} is no virtual environment: it has no {_CONFIGURATION} or no bin/python that runs. "
            "py:ensure_venv(Directory, Requirements) makes one"
        ).encode("utf-8", "surrogateescape")
    version = re.match(r"\d+\.\d+", settings.get("version") or settings.get("version_info") or "")
    theirs = version[0] if version else "of another version"
    ours = "{}.{}".format(*sys.version_info)
    if theirs == ours or (version is None and os.path.isdir(_site_directories(directory)[0])):
        return None
    return atom("wrong_python"), (
        f"{directory} was made for Python {theirs} and this node runs {ours}: make it anew with "
        f"{sys.executable} -m venv, or start the node with CAUSEWAY_PYTHON={_executable(directory)}"
    ).encode("utf-8", "surrogateescape")


def _settings(directory):
    try:
        with open(os.path.join(directory, _CONFIGURATION), encoding="utf-8", errors="replace") as lines:
            pairs = [line.partition("=") for line in lines]
    except OSError:
        return None
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _executable(directory):
    return os.path.join(directory, "bin", "python")


def _site_directories(prefix):
    """Where the packages of a virtual environment are: one directory, or two where lib64 is another."""
    places = {"base": prefix, "platbase": prefix}
    return list(dict.fromkeys(sysconfig.get_path(name, "venv", places) for name in ("purelib", "platlib")))


def _enter(activation):
    directory = activation.directory
    undo = activation.undo
    _replace_configuration(undo, directory)
    _replace(undo, sys, "prefix", directory)
    _replace(undo, sys, "exec_prefix", directory)
    # sys._base_executable stays: it is what makes further environments, here as in a real one.
    _replace_spawn_executable(undo, _executable(directory))
    _replace(undo, sys, "executable", _executable(directory))
    _replace(undo, site, "PREFIXES", [directory, *site.PREFIXES])
    _replace_variable(undo, "VIRTUAL_ENV", directory)
    _replace_variable(undo, "PYTHONHOME", None)
    _extend_search_path(undo, os.path.join(directory, "bin"))
    _add_site_directories(activation)


# Every change says first how it is taken back, so that an interruption between the two does no harm.


def _replace(undo, holder, name, value):
    undo.callback(setattr, holder, name, getattr(holder, name))
    setattr(holder, name, value)


def _replace_configuration(undo, directory):
    """Newer versions of Python see by themselves that sys.prefix is another, older ones do not."""
    variables = sysconfig.get_config_vars()
    names = ("prefix", "exec_prefix", "base", "platbase")
    undo.callback(variables.update, {name: variables[name] for name in names})
    variables.update(dict.fromkeys(names, directory))


def _replace_spawn_executable(undo, executable):
    """multiprocessing keeps the sys.executable that there was when it was imported."""
    spawn = sys.modules.get("multiprocessing.spawn")
    undo.callback(_put_spawn_executable_back, executable, spawn.get_executable() if spawn else sys.executable)
    if spawn:
        spawn.set_executable(executable)


def _put_spawn_executable_back(ours, before):
    spawn = sys.modules.get("multiprocessing.spawn")
    if spawn and spawn.get_executable() in (ours, os.fsencode(ours)):
        spawn.set_executable(before)


def _replace_variable(undo, name, value):
    undo.callback(_put_variable_back, name, value, os.environ.get(name))
    _set_variable(name, value)


def _put_variable_back(name, ours, before):
    if os.environ.get(name) == ours:
        _set_variable(name, before)


def _set_variable(name, value):
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _extend_search_path(undo, scripts):
    before = os.environ.get("PATH")
    ours = os.pathsep.join([scripts, os.defpath if before is None else before])
    undo.callback(_shorten_search_path, scripts, ours, before)
    os.environ["PATH"] = ours


def _shorten_search_path(scripts, ours, before):
    if os.environ.get("PATH") == ours:
        _set_variable("PATH", before)
    else:
        places = os.environ.get("PATH", "").split(os.pathsep)
        if scripts in places:
            places.remove(scripts)
            os.environ["PATH"] = os.pathsep.join(places)


def _add_site_directories(activation):
    """Add the packages to sys.path, with what their .pth files name and do.

    They come where a virtual environment has them: before the packages of the Python that runs, but after the
    standard library, which a package of the same name must not hide.
    """
    path, finders, hooks = list(sys.path), list(sys.meta_path), list(sys.path_hooks)
    modules = set(sys.modules)
    places = _site_directories(activation.directory)
    settings = _settings(activation.directory) or {}
    if settings.get("include-system-site-packages", "").lower() == "true":
        system = site.getsitepackages([sys.base_prefix, sys.base_exec_prefix])
        places += [place for place in system if place not in path and os.path.isdir(place)]
    try:
        for place in places:
            site.addsitedir(place, activation.known)
    finally:
        kept, added = _compare(sys.path, path)
        if added:
            index = next((index for index, place in enumerate(kept) if place in activation.behind), len(kept))
            activation.undo.callback(_remove, "path", added)
            sys.path[:] = kept[:index] + added + kept[index:]
        for name, before in (("meta_path", finders), ("path_hooks", hooks)):
            if added := _compare(getattr(sys, name), before)[1]:
                activation.undo.callback(_remove, name, added)
        if helpers := _modules_beside(places, set(sys.modules) - modules):
            activation.undo.callback(_forget, helpers)


def _compare(present, before):
    """What was in a list before, and what was not."""
    rest, kept, added = list(before), [], []
    for entry in present:
        if entry in rest:
            rest.remove(entry)
            kept.append(entry)
        else:
            added.append(entry)
    return kept, added


def _remove(name, added):
    """Take what was added out of one of sys's lists, which may be another list by now."""
    present = getattr(sys, name)
    for entry in added:
        if entry in present:
            present.remove(entry)


def _modules_beside(places, names):
    """Those modules that .pth files have imported from the environment, for editable packages above all.

    Another environment may have others of the same name. Packages stay: they may be in use.
    """
    modules = {name: sys.modules.get(name) for name in names}
    files = {
        name: getattr(module, "__file__", None)
        for name, module in modules.items()
        if not hasattr(module, "__path__")
    }
    return [name for name, file in files.items() if file and os.path.dirname(file) in places]


def _forget(names):
    for name in names:
        sys.modules.pop(name, None)
