"""Cron as its definition says, with no cleverness: every minute is looked at."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)

RANGES = {"minute": (0, 59), "hour": (0, 23), "day": (1, 31), "month": (1, 12), "weekday": (0, 6)}


class Model:
    """The five fields as sets; a star is None."""

    def __init__(self, **fields):
        self.fields = fields
        self.follows_clock = any(str(fields[name]).startswith("*") for name in ("minute", "hour"))
        self.sets = {name: numbers(name, text) for name, text in fields.items()}

    @property
    def expression(self):
        return " ".join(self.fields.values())

    def shows(self, wall):
        """Whether the clock may show this on a job's due instant."""
        values = self.sets
        if not (
            wall.minute in values["minute"]
            and wall.hour in values["hour"]
            and wall.month in values["month"]
        ):
            return False
        day = wall.day in values["day"]
        weekday = wall.isoweekday() % 7 in values["weekday"]
        if any(self.fields[name].startswith("*") for name in ("day", "weekday")):
            return day and weekday
        return day or weekday

    def between(self, first, last, zone):
        """All instants later than ``first`` and not later than ``last``."""
        found = self._following(first, last, zone) if self.follows_clock else ()
        if not self.follows_clock:
            found = self._fixed(first, last, zone)
        return sorted(instant for instant in set(found) if first < instant <= last)

    def _following(self, first, last, zone):
        instant = first.replace(second=0, microsecond=0)
        while instant <= last:
            if self.shows(instant.astimezone(zone)):
                yield instant
            instant += MINUTE

    def _fixed(self, first, last, zone):
        wall = (first - timedelta(days=2)).replace(tzinfo=None, second=0, microsecond=0)
        while wall <= last.replace(tzinfo=None) + timedelta(days=2):
            if self.shows(wall):
                yield due(wall, zone)
            wall += MINUTE


def due(wall, zone):
    """When a job at a fixed time is due: the first time that the clock shows it, or past a gap."""
    instants = [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    shown = [each for each in instants if each.astimezone(zone).replace(tzinfo=None) == wall]
    if shown:
        return min(shown)
    instant = min(instants)  # before the gap: PEP 495 reads it with the offset after
    before = instant.astimezone(zone).utcoffset()
    while instant.astimezone(zone).utcoffset() == before:
        instant += MINUTE
    return instant


def numbers(name, text):
    low, high = RANGES[name]
    found = set()
    for item in text.split(","):
        body, _, step = item.partition("/")
        if body == "*":
            first, last = low, high
        else:
            first, _, last = body.partition("-")
            first, last = int(first), int(last or (high if step else first))
        found.update(range(first, last + 1, int(step or 1)))
    return found


def random_field(random, name, star=0.4):
    """A field as people write it, and as they do not."""
    low, high = RANGES[name]
    if random.random() < star:
        return random.choice(["*", "*", f"*/{random.randint(1, high)}"])
    items = []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        first, last = sorted(random.randint(low, high) for _ in range(2))
        step = random.randint(1, high)
        # Not n-n/step, which one of the other libraries reads otherwise.
        span = f"{first}-{last}/{step}" if first < last else str(first)
        items.append(random.choice([str(first), f"{first}-{last}", span]))
    return ",".join(items)


def random_model(random, star=0.4):
    """Any expression; also one that never fires."""
    return Model(**{name: random_field(random, name, star) for name in RANGES})


def transitions(zone, first_year, last_year):
    """The instants, to the minute, at which a zone's offset changes."""
    info = ZoneInfo(zone)
    instant = datetime(first_year, 1, 1, tzinfo=UTC)
    found = []
    while instant.year <= last_year:
        offset = instant.astimezone(info).utcoffset()
        after = instant + timedelta(hours=12)
        if after.astimezone(info).utcoffset() != offset:
            while instant.astimezone(info).utcoffset() == offset:
                instant += MINUTE
            found.append(instant)
        instant = after
    return found
