"""What spoils files, by chance or on purpose."""

from __future__ import annotations

import random

HOSTILE = [
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    "",
    "x" * 5000,
    "\ud800",
    "../../etc/passwd",
    [],
    {},
]
HOSTILE += [[[]], {"a": {"b": []}}, "<script>", 2**31, 2**63, "1\n2"]


def damaged(content: bytes, rng: random.Random) -> bytes:
    """As disks, networks and hasty copies do it."""
    at = rng.randrange(len(content))
    kind = rng.randrange(5)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
    if kind == 1:
        return content[:at]
    if kind == 2:
        return content[:at] + rng.randbytes(rng.randrange(1, 64)) + content[at:]
    if kind == 3:
        return content[:at] + bytes(min(512, len(content) - at)) + content[at + 512 :]
    return content[at:] + content[:at]


def changed(value, rng: random.Random):
    """JSON in which one value, anywhere, is another."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != name}
        return {**value, name: changed(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        return [*value[:at], changed(value[at], rng), *value[at + 1 :]]
    return rng.choice(HOSTILE)
