"""The package's logger, and how to write to it where nothing may go wrong.

Its handlers and filters are the program's own, and any of them may raise: what goes on in the
background must go on all the same.
"""

from __future__ import annotations

import logging
import traceback
from typing import Any, Final

logger: Final = logging.getLogger("job_scheduler")


def tell(level: int, message: str, *args: object, **options: Any) -> None:
    """Log a record; what a handler or filter raises goes to the standard error."""
    try:
        logger.log(level, message, *args, **options)
    except Exception:
        traceback.print_exc()
