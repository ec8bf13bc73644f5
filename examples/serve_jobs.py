"""Two job types for ``make serve``: one that fails now and then, and one that takes its time."""

import random
import time

from job_scheduler import Job


class FetchPrices(Job):
    """Asks a shop for its prices, which is down now and then.

    Args:
        shop: whom to ask.
        fails_one_in: how often it is down: one time in so many, or never (0).
    """

    def process(self, *, shop: str = "shop.example.com", fails_one_in: int = 4) -> dict[str, float]:
        print(f"asking {shop} for its prices", flush=True)
        time.sleep(random.uniform(0.1, 0.6))  # its time
        if fails_one_in and random.randrange(fails_one_in) == 0:
            raise ConnectionError(f"{shop} answered 503 Service Unavailable")
        prices = {
            fruit: round(random.uniform(1, 5), 2) for fruit in ("apples", "pears", "cherries")
        }
        print(", ".join(f"{fruit} {price:.2f}" for fruit, price in prices.items()), flush=True)
        return prices


class BackUp(Job):
    """Copies a lot, part by part, and says how far it is.

    Args:
        parts: how many.
        seconds: how long each takes.
    """

    timeout = 600

    def process(self, *, parts: int = 12, seconds: float = 5.0) -> dict[str, int]:
        for part in range(1, parts + 1):
            time.sleep(seconds)
            print(f"part {part} of {parts} is copied", flush=True)
        return {"parts": parts}
