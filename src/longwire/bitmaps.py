"""Sets of devices: Roaring bitmaps of ``device_no``, cut into segments of 65,536 (DESIGN §3).

Every bitmap holds absolute numbers. Roaring keeps a container for each 65,536 values, so that a segment's part is
one container, its blob at most 8,256 bytes, and nothing ever has to be shifted.
"""

from pyroaring import BitMap

_LAST = (1 << 32) - 1


def segment_of(device_no: int) -> int:
    """The segment that a device is of."""
    return device_no >> 16


def last_of(segment: int) -> int:
    """The highest number that a device of the segment can have."""
    return (segment + 1 << 16) - 1


def part(devices: BitMap, segment: int) -> BitMap:
    """Those of the devices that are of the segment, as a bitmap of its own."""
    return devices & BitMap(range(segment << 16, (segment + 1) << 16))


def split(devices: BitMap) -> dict[int, BitMap]:
    """The devices by segment, lowest first; no segment is empty."""
    parts: dict[int, BitMap] = {}
    at = 0
    while at <= _LAST:
        try:
            segment = devices.next_set_bit(at) >> 16
        except ValueError:
            break
        parts[segment] = part(devices, segment)
        at = (segment + 1) << 16
    return parts


def segments(devices: BitMap) -> list[int]:
    """The segments that any of the devices is of, lowest first."""
    return list(split(devices))


def above(devices: BitMap, device_no: int) -> BitMap:
    """Those with a number above ``device_no``."""
    rest = devices.copy()
    rest.remove_range(0, device_no + 1)
    return rest


def dump(devices: BitMap) -> bytes | None:
    """The set as a blob; None for the empty one."""
    if not devices:
        return None
    devices.run_optimize()
    return devices.serialize()


def load(blob: bytes | None) -> BitMap:
    """The set that ``dump`` made the blob of."""
    return BitMap() if blob is None else BitMap.deserialize(blob)
