"""How long an audience of tags takes: expressions over a million devices with a hundred tags each, without a server.

    python -m bench.audience [--devices 1000000] [--repeats 5] [--json]

There are a thousand tags in a hundred families of ten; each device has one of each family, by a hash, so that every
tag is a tenth of all devices, at random: the worst case for a bitmap. The store is SQLite as the server has it, in a
fresh folder; the tags' bitmaps are written as registrations leave them, the devices' own lists are not, for no audience
reads them. Each expression is resolved as a push has it resolved, and held against plain Python over every device.
Exit status 1 where they differ.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.sql import device_sets
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.clock import SystemClock
from longwire.limits import Limits
from longwire.push.audience import Audiences
from longwire.push_model import SetKind, TagExpression

FAMILIES = 100
SIZE = 10
_MASK = (1 << 64) - 1
_chance = random.Random(20_251_124)
_FACTORS = [_chance.getrandbits(64) | 1 for _ in range(FAMILIES)]


def member_of(device_no: int, family: int) -> int:
    """Which tag of the family the device has."""
    return ((device_no * _FACTORS[family] & _MASK) >> 40) % SIZE


def expressions() -> list[TagExpression]:
    """From the one in the API's page to the largest that is taken."""
    made = []
    for any_, all_, none in ((2, 1, 1), (0, 10, 0), (1, 1, 48), (48, 1, 1), (20, 10, 20), (20, 0, 30)):
        names = [f"t{tag}" for tag in _chance.sample(range(FAMILIES * SIZE), any_ + all_ + none)]
        made.append(TagExpression(tuple(names[:any_]), tuple(names[any_ : any_ + all_]), tuple(names[any_ + all_ :])))
    return made


def by_brute_force(devices: int, tags: TagExpression) -> set[int]:
    """Every device is asked for its tags, one by one."""

    def wanted(names: Sequence[str]) -> list[tuple[int, int]]:
        return [(_FACTORS[int(name[1:]) // SIZE], int(name[1:]) % SIZE) for name in names]

    any_, all_, none = wanted(tags.any), wanted(tags.all), wanted(tags.none)
    found = set()
    for no in range(1, devices + 1):
        if any_ and not any(((no * factor & _MASK) >> 40) % SIZE == tag for factor, tag in any_):
            continue
        if not all(((no * factor & _MASK) >> 40) % SIZE == tag for factor, tag in all_):
            continue
        if any(((no * factor & _MASK) >> 40) % SIZE == tag for factor, tag in none):
            continue
        found.add(no)
    return found


async def fill(database: SqliteDatabase, devices: int) -> None:
    """A transaction a family: ten sets, and a blob for each segment of each."""

    def write(connection: Connection, names: Sequence[str], kind: SetKind, parts: Sequence[BitMap]) -> None:
        for name, members in zip(names, parts, strict=True):
            connection.exec_driver_sql(
                "INSERT INTO device_sets (kind, name, created_at_ms) VALUES (?, ?, 0)", (int(kind), name)
            ).close()
            device_sets.put_members(connection, device_sets.find_sets(connection, kind, [name])[name], members)

    everyone = BitMap(range(1, devices + 1))
    await database.write(lambda connection: write(connection, [""], SetKind.EVERYONE, [everyone]))
    for family in range(FAMILIES):
        parts = [array("I") for _ in range(SIZE)]
        for no in range(1, devices + 1):
            parts[member_of(no, family)].append(no)
        names = [f"t{family * SIZE + at}" for at in range(SIZE)]
        sets = [BitMap(part) for part in parts]
        await database.write(
            lambda connection, names=names, sets=sets: write(connection, names, SetKind.TAG, sets)  # type: ignore[misc]
        )


async def measure(devices: int, repeats: int, folder: Path) -> dict[str, object]:
    """The times of every expression in ms, and how many were wrong."""
    database, clock = SqliteDatabase(folder), SystemClock()
    await database.start()
    sets = SqlAudiences(database)
    audiences = Audiences(sets, SqlPushes(database, clock, SqlPushWaiting(database, clock)), clock, Limits())
    await fill(database, devices)
    rows, times, wrong = [], [], 0
    for tags in expressions():
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            found = await audiences.resolve_tags(tags)
            taken.append((time.perf_counter() - began) * 1000)
        wrong += set(found) != by_brute_force(devices, tags)
        rows.append({
            "any": len(tags.any), "all": len(tags.all), "none": len(tags.none), "devices": len(found),
            "first_ms": round(taken[0], 1), "median_ms": round(statistics.median(taken), 1),
            "worst_ms": round(max(taken), 1),
        })  # fmt: skip
        times += taken
    await database.stop()
    return {
        "devices": devices,
        "tags_a_device": FAMILIES,
        "expressions": rows,
        "median_ms": round(statistics.median(times), 1),
        "worst_ms": round(max(times), 1),
        "wrong": wrong,
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--devices", type=int, default=1_000_000)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--json", action="store_true", help="the result as one line of JSON")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="longwire-audience-") as folder:
        result = asyncio.run(measure(chosen.devices, chosen.repeats, Path(folder)))
    if chosen.json:
        print(json.dumps(result))
    else:
        print(f"{result['devices']} devices with {result['tags_a_device']} tags each")
        rows = result["expressions"]
        assert isinstance(rows, list)
        for row in rows:
            print("  ".join(f"{name} {value}" for name, value in row.items()))
        print(f"median {result['median_ms']} ms, worst {result['worst_ms']} ms, {result['wrong']} unlike brute force")
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
