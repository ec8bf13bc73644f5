"""Finding a job class by name in another process, also one of the program's main module.

The rules are those of ``multiprocessing``'s spawn: a script is imported again under the name
``__mp_main__``, so that what stands under ``if __name__ == "__main__"`` does not run, and is
also entered as ``__main__``, so that pickled references to it resolve.
"""

from __future__ import annotations

import sys

from job_scheduler.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any

MAIN_NAMES = frozenset({"__main__", "__mp_main__"})

MainSource = tuple[str, str]
"""How the main module is found again: ``("module", name)`` or ``("file", path)``."""

importing: str | None = None
"""The module that this process imports just now on behalf of a program, if it is a zygote."""

runs_jobs = False
"""Whether this process is one that jobs are forked from, or one of theirs."""

_imported_main: ModuleType | None = None


def describe_main() -> MainSource | None:
    """How another process can import this program's main module; None in a REPL or notebook."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in MAIN_NAMES:
        return ("module", spec.name)
    path = getattr(main, "__file__", None)
    if path is None:
        return None
    import os

    path = os.path.abspath(path)
    return ("file", path) if os.path.isfile(path) else None


def find_class(module_name: str, qualname: str, main: MainSource | None) -> type:
    """Import the module, if need be, and return the class; raises whatever the import raises."""
    if module_name in MAIN_NAMES:
        return class_in(import_main(main), qualname)
    with _Importing(module_name):
        __import__(module_name)
    return class_in(sys.modules[module_name], qualname)


def class_in(module: ModuleType, qualname: str) -> type:
    """The class of this name; raises ``ImportError`` with what to do if there is none."""
    found: object = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if isinstance(found, type):
        return found
    name = module.__name__
    if found is not None:
        raise ImportError(f"{name}.{qualname} is {found!r}, not a class")
    if name not in MAIN_NAMES:
        raise ImportError(f"{qualname} is not there when {name} is imported for its jobs")
    raise ImportError(
        f"{qualname} is not there when {module.__file__} is imported for its jobs: move the class "
        f"out of 'if __name__ == \"__main__\":', above it"
    )


def is_imported_for_jobs() -> str | None:
    """What is being imported if this process does that only to run jobs of a program."""
    multiprocessing_process = sys.modules.get("multiprocessing.process")
    if importing is None and multiprocessing_process is not None:
        current = multiprocessing_process.current_process()
        return "the main module" if getattr(current, "_inheriting", False) else None
    return importing


def refuse_during_import() -> None:
    """Raise ``LaunchError`` if this process only imports a program, to run its jobs."""
    where = is_imported_for_jobs()
    if where is not None:
        raise LaunchError(
            f"a job was run or scheduled while {where} was being imported in a process for its "
            f"jobs. Move the call into a function, or under 'if __name__ == \"__main__\":'"
        )


class _Importing:
    """Marks what is being imported, so that a ``run()`` at its top level can be refused."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        global importing
        importing = self._name

    def __exit__(self, *_: object) -> None:
        global importing
        importing = None


def import_main(main: MainSource | None) -> ModuleType:
    """Import the main module of a program under the name ``__mp_main__``, once."""
    global _imported_main
    if _imported_main is not None:
        return _imported_main
    if main is None:
        raise ImportError("an interactive session cannot be imported")
    module = type(sys)("__mp_main__")
    kind, where = main
    if kind == "file":
        module.__file__ = where
        code = _compile_file(where)
    else:
        code = _code_of_module(where, module)
    before = sys.modules["__main__"]
    sys.modules["__mp_main__"] = sys.modules["__main__"] = module
    try:
        with _Importing(where):
            exec(code, module.__dict__)
    except BaseException:
        del sys.modules["__mp_main__"]
        sys.modules["__main__"] = before
        raise
    _imported_main = module
    return module


def call_by_name(name: str) -> None:
    """Call ``package.module:function`` without arguments."""
    module_name, _, function_name = name.partition(":")
    __import__(module_name)
    function: Any = sys.modules[module_name]
    for part in function_name.split("."):
        function = getattr(function, part)
    function()


def _compile_file(path: str) -> CodeType:
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _code_of_module(name: str, module: ModuleType) -> CodeType:
    from importlib.util import find_spec

    spec = find_spec(name)
    code = spec.loader.get_code(name) if spec and hasattr(spec.loader, "get_code") else None  # type: ignore[union-attr]
    if spec is None or code is None:
        raise ImportError(f"the main module {name!r} cannot be imported again")
    module.__spec__ = spec
    module.__file__ = spec.origin
    module.__package__ = spec.parent
    return code  # type: ignore[no-any-return]
