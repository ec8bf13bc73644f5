"""The name of a job as the name of its process, for those that import ``multiprocessing``."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Naming:
    """Makes ``multiprocessing.current_process().name`` the job's, whenever that is imported.

    It stands in the zygote's ``sys.meta_path``, imports ``multiprocessing.process`` as usual,
    and then names the current process. Jobs that never import it do not pay for it.
    """

    name = ""
    """The job's; set before the fork."""

    def install(self) -> None:
        """Prepare the zygote for jobs that import ``multiprocessing``."""
        sys.meta_path.insert(0, self)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != "multiprocessing.process" or not self.name:
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec

        spec = find_spec(fullname)
        loader: Any = spec.loader if spec else None
        execute = loader.exec_module

        def execute_and_apply(module: Any) -> None:
            execute(module)
            self.apply(module)

        loader.exec_module = execute_and_apply
        return spec

    def apply(self, process: Any) -> None:
        """Name the current process, and forget the zygote's own children and finalizers."""
        process.current_process()._name = self.name
        process._children.clear()
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # as multiprocessing does in each child that it forks
            util._finalizer_registry.clear()
            util._run_after_forkers()


NAMING = Naming()
