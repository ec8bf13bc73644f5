"""What becomes of cron jobs where the clock of a zone is set forward or back, library by library.

A job at a fixed time should run once on each day, also where its time is skipped or comes twice; a
job of every 15 minutes should go on every 15 minutes. See README.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

YEARS = range(1995, 2031)

ZONES = (
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Asuncion",
    "America/Havana",
    "America/Los_Angeles",
    "America/New_York",
    "America/Nuuk",
    "America/Sao_Paulo",
    "America/Santiago",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",
    "Asia/Pyongyang",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/Istanbul",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Norfolk",
)

MINUTE = timedelta(minutes=1)
QUARTER = timedelta(minutes=15)
DAY = timedelta(days=1)
# cron(8) has its rule for changes of less than this: more is not summer time, but another date.
TOO_FAR = timedelta(hours=3)
# No job here has as many fires in its window; a library that does not get on is left there.
ENOUGH_FIRES = 200

FiresFrom = Callable[[str, str, datetime], Callable[[], Iterator[datetime]]]


@dataclass(frozen=True)
class Change:
    """Where the offset of a zone becomes another."""

    zone: str
    instant: datetime
    before: timedelta
    after: timedelta

    @property
    def skips(self) -> bool:
        return self.after > self.before

    @property
    def walls(self) -> list[datetime]:
        """A quarter and three quarters into what the clock skips or shows twice."""
        first = (self.instant + min(self.before, self.after)).replace(tzinfo=None)
        length = abs(self.after - self.before)
        return [(first + length * part / 4).replace(second=0) for part in (1, 3)]


@dataclass
class Tally:
    """What one library made of the changes."""

    due: Counter[str] = field(default_factory=Counter)  # "skipped", "repeated"
    never: Counter[str] = field(default_factory=Counter)
    twice: Counter[str] = field(default_factory=Counter)
    longest: timedelta = timedelta()
    missed: int = 0  # changes at which a quarter of an hour was left out
    doubled: int = 0  # changes at which one came twice, or at another time


def changes_of(zone: str, years: Iterable[int] = YEARS) -> Iterator[Change]:
    info = ZoneInfo(zone)
    for year in years:
        low, end = datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)
        while low < end:
            high = min(low + DAY, end)
            change = change_between(zone, info, low, high)
            if change is not None and abs(change.after - change.before) < TOO_FAR:
                yield change
            low = high


def change_between(zone: str, info: ZoneInfo, low: datetime, high: datetime) -> Change | None:
    """The change in (low, high], to the minute; no zone has two in one day."""
    before, after = (each.astimezone(info).utcoffset() for each in (low, high))
    if before is None or after is None or before == after:
        return None
    while high - low > MINUTE:
        middle = low + (high - low) // MINUTE // 2 * MINUTE
        if middle.astimezone(info).utcoffset() == before:
            low = middle
        else:
            high = middle
    return Change(zone, high, before, after)


def compare(peers: dict[str, FiresFrom], changes: Iterable[Change]) -> dict[str, Tally]:
    tallies = {name: Tally() for name in peers}
    for change in changes:
        for name, peer in peers.items():
            count_daily(peer, change, tallies[name])
            count_quarters(peer, change, tallies[name])
    return tallies


def count_daily(peer: FiresFrom, change: Change, tally: Tally) -> None:
    """How often a daily job runs between its runs of the days before and after.

    Not by the date of the fires: one that is skipped before midnight is due after it.
    """
    info = ZoneInfo(change.zone)
    kind = "skipped" if change.skips else "repeated"
    for wall in change.walls:
        first, last = ((wall + days).replace(tzinfo=info).astimezone(UTC) for days in (-DAY, DAY))
        expression = f"{wall.minute} {wall.hour} * * *"
        found = fires_until(last, peer(expression, change.zone, just_after(first)))
        runs = sum(instant < last for instant in found)
        tally.due[kind] += 1
        tally.never[kind] += runs == 0
        tally.twice[kind] += runs > 1


def count_quarters(peer: FiresFrom, change: Change, tally: Tally) -> None:
    """Whether a job of every 15 minutes goes on, from 3 hours before the change to 6 after it.

    All these zones are whole quarters of an hour off, so it is due at those of UTC.
    """
    first = change.instant.replace(minute=change.instant.minute // 15 * 15) - timedelta(hours=3)
    expected = Counter(first + number * QUARTER for number in range(1, 36))
    last = first + 36 * QUARTER
    found = fires_until(last, peer("*/15 * * * *", change.zone, just_after(first)))
    within = Counter(instant for instant in found if instant < last)
    distances = (later - sooner for sooner, later in pairwise([first, *found]))
    tally.longest = max(tally.longest, *distances)
    tally.missed += bool(expected - within)
    tally.doubled += bool(within - expected)


def just_after(instant: datetime) -> datetime:
    """A start for which it does not matter whether a library takes it for a fire."""
    return instant + timedelta(seconds=30)


def fires_until(last: datetime, fires: Callable[[], Iterator[datetime]]) -> list[datetime]:
    """The fires up to the first that is not before ``last``."""
    found = []
    for fire in islice(fires(), ENOUGH_FIRES):
        found.append(fire.astimezone(UTC))
        if found[-1] >= last:
            break
    return found


def table(tallies: dict[str, Tally]) -> str:
    due = next(iter(tallies.values())).due
    above = f"{'':15}{due['skipped']:>9,} skipped{due['repeated']:>11,} repeated{'*/15':>9}"
    heads = ("never", "twice", "never", "twice", "longest", "missed", "doubled")
    lines = [above, f"{'at clock changes':17}" + cells(heads)]
    for name, tally in tallies.items():
        kinds = (tally.never["skipped"], tally.twice["skipped"])
        kinds += (tally.never["repeated"], tally.twice["repeated"])
        longest = f"{tally.longest // MINUTE} min"
        values = [*(f"{count:,}" for count in kinds), longest, tally.missed, tally.doubled]
        lines.append(f"{name:17}" + cells(values))
    return "\n".join(lines)


def cells(values: Iterable[object]) -> str:
    return " ".join(f"{value!s:>8}" for value in values)


def summary(changes: list[Change]) -> str:
    skips = sum(change.skips for change in changes)
    return (
        f"{len(changes):,} changes of the clock in {len(ZONES)} zones, {YEARS[0]} to {YEARS[-1]}, "
        f"{skips:,} of them forward; two daily jobs at each, and one of every 15 minutes"
    )
