"""Changes inputs at random: bytes, lines, cells and the nodes of documents."""

import json
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

LONGEST = 1 << 16
"""Bytes of an input at most; longer ones are cut."""

NUMBERS = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 4095, 32767, 32768, 65535, 65536, 1 << 24, (1 << 31) - 1, 1 << 31)
NUMBERS += ((1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, 5e-324, 1 << 31, 1 << 53, 1 << 63, -(1 << 63), 1 << 64),
    *(float("nan"), float("inf"), float("-inf"), 10**30, "", " ", "abc", "0", "1e5", "nan", "true", "null", "???"),
    *("../../x", "/etc/hostname", "a/b", ".", "..", "\0", "\n", "\x1b[31m", "\u202e", "é", "e\u0301", "\ud800", "𝔘"),
    *("${seed}", "${a.b}", "${oc.env:HOME}", "%s", "x" * 300, "x" * 5000, [], {}, [[]], [None], [0, 0], {"": None}),
    *({"a": 1}, [[[[1]]]], ["a", "a"], {"_target_": "builtins.dict"}, {"path": "/etc/hostname"}, "0" * 32, "z" * 32),
)
"""Nodes that replace others in documents."""

TEXTS = (
    *("", " ", "\t", "\n", "\r\n", "\0", "\x1b", "\ufeff", "\u202e", "é", "e\u0301", "𝔘", "\u2028", "'", '"', "\\"),
    *(",", ";", ":", "=", "-", "- ", "? ", "#", "&a ", "*a", "<<: *a", "!!int ", "!!binary ", "!!set ", "!x ", "|"),
    *(">", "%YAML 1.1", "---", "...", "[", "]", "{", "}", "${", "${seed}", "${a.b}", "${oc.env:HOME}", "~", "null"),
    *("true", "on", "???", "0x1f", "0o17", "012", "1_000", "1:30", "1e5", "1e400", "-0", ".nan", ".inf", "2001-01-01"),
    *("9" * 25, "9" * 5000, "x" * 300, "../", "/", "/etc/hostname", "a" * 40, "_target_", "name", "path", "md5"),
    *("choice(1,2)", "interval(0,1)", "range(0,3)", "glob(*)", "tag(log,", "sort(", "shuffle(", "int(", "cast("),
)
"""Pieces of YAML, CSV and Hydra's grammar."""


class Mutator:
    """Changes inputs of one target.

    Args:
        drawn: where chance comes from.
        kind: "bytes", "json", "lines" or "cells": what is changed as a whole besides bytes.
        tokens: pieces that mean something to the reader.
        headed: whether the first line says what the rest is; it is left alone.
        repair: makes an input consistent again (checksums), so that readers look behind them.
    """

    def __init__(
        self,
        drawn: random.Random,
        kind: str,
        tokens: Sequence[bytes] = (),
        *,
        headed: bool = False,
        repair: Callable[[bytes], bytes] | None = None,
    ):
        self._random, self._kind, self._headed, self._repair = drawn, kind, headed, repair
        self._texts = kind != "bytes"
        self._tokens = [*tokens, *(text.encode("utf-8", "surrogatepass") for text in TEXTS if self._texts)]

    def mutate(self, data: bytes, other: bytes) -> bytes:
        """`data`, changed; pieces of `other` may come in."""
        head, rest, more = b"", data, other
        if self._headed:
            head, _, rest = data.partition(b"\n")
            head, more = head + b"\n", other.partition(b"\n")[2]
        pick = self._random.random()
        if self._kind == "json" and pick < 0.75:
            rest = self._document(rest, more)
        elif self._kind == "lines" and pick < 0.6:
            rest = self._separated(rest, more, b"\n")
        elif self._kind == "cells" and pick < 0.6:
            rest = self._separated(rest, more, self._random.choice((b"\n", b",")))
        if not self._texts or pick > 0.55:
            for _ in range(1 << self._random.choice((0, 0, 0, 1, 1, 2, 3))):
                rest = self._bytes(rest, more)
        if self._repair is not None and self._random.random() < 0.7:
            rest = self._repair(rest)
        return (head + rest)[:LONGEST]

    def _bytes(self, data: bytes, other: bytes) -> bytes:
        """One change of bytes."""
        drawn, size = self._random, len(data)
        at = drawn.randrange(size + 1)
        if drawn.random() < 0.3:
            at = min(at, drawn.randrange(64))  # headers
        way = drawn.randrange(10)
        if way == 0 and size:
            at = min(at, size - 1)
            return data[:at] + bytes([data[at] ^ (1 << drawn.randrange(8))]) + data[at + 1 :]
        if way == 1:
            return data[:at] + drawn.randbytes(1 << drawn.randrange(4)) + data[at + (1 << drawn.randrange(4)) :]
        if way == 2:
            length = drawn.choice((1, 2, 4, 8))
            number = drawn.choice(NUMBERS) % (1 << 8 * length)
            return data[:at] + number.to_bytes(length, drawn.choice(("big", "little"))) + data[at + length :]
        if way == 3 and self._tokens:
            token = drawn.choice(self._tokens)
            return data[:at] + token + data[at + drawn.choice((0, 0, len(token))) :]
        if way == 4:
            return data[:at] + data[at + drawn.choice((1, 1, 2, 4, 16, 64)) :]
        if way == 5:
            piece = data[at : at + drawn.choice((1, 4, 16, 64, 256))]
            return data[:at] + piece * drawn.choice((2, 2, 3, 20)) + data[at + len(piece) :]
        if way == 6 and other:
            start = drawn.randrange(len(other))
            piece = other[start : start + drawn.choice((4, 16, 64, 1024))]
            return data[:at] + piece + data[at + drawn.choice((0, len(piece))) :]
        if way == 7 and other:
            return data[:at] + other[drawn.randrange(len(other)) :]
        if way == 8 and drawn.random() < 0.3:
            return data[:at]
        if way == 9:
            length = drawn.choice((4, 16, 64))
            return data[:at] + drawn.choice((b"\0", b"\xff")) * len(data[at : at + length]) + data[at + length :]
        return data[:at] + bytes([drawn.randrange(256)]) + data[at + 1 :]

    def _separated(self, data: bytes, other: bytes, by: bytes) -> bytes:
        """One or two changes of lines or cells."""
        drawn, parts, more = self._random, data.split(by), other.split(by)
        for _ in range(drawn.choice((1, 1, 2))):
            at, way = drawn.randrange(len(parts)) if parts else 0, drawn.randrange(8)
            if not parts or way == 0:
                parts.insert(at, drawn.choice(more))
            elif way == 1:
                del parts[at]
            elif way == 2:
                parts.insert(at, parts[at])
            elif way == 3:
                parts[at] = drawn.choice((b" ", b"  ", b"\t", b"- ")) + parts[at]
            elif way == 4:
                parts[at] = parts[at].lstrip()
            elif way == 5:
                key, colon, _ = parts[at].partition(b":")
                parts[at] = key + colon + b" " + drawn.choice(self._tokens) if colon else drawn.choice(self._tokens)
            elif way == 6:
                to = drawn.randrange(len(parts))
                parts[at], parts[to] = parts[to], parts[at]
            else:
                parts[at] += drawn.choice(self._tokens)
        return by.join(parts)

    def _document(self, data: bytes, other: bytes) -> bytes:
        """Changes of nodes of a JSON document; where `data` is none, of its bytes."""
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            return self._bytes(data, other)
        drawn = self._random
        if drawn.random() < 0.002:
            return b"[" * drawn.choice((1100, 50_000))
        for _ in range(drawn.choice((1, 1, 1, 2, 3))):
            document = self._node_changed(document, other)
        text = json.dumps(document, ensure_ascii=drawn.random() < 0.9)
        return text.encode("utf-8", "surrogatepass")

    def _node_changed(self, document: Any, other: bytes) -> Any:
        drawn = self._random
        places = list(_places(document))
        if not places or drawn.random() < 0.02:
            return deepcopy(drawn.choice(VALUES))
        holder, key = drawn.choice(places)
        way = drawn.randrange(9)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[str(drawn.choice((*VALUES[20:44], key + "s", key[:-1])))] = holder.pop(key)
        elif way == 2 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif way == 3:
            from_holder, from_key = drawn.choice(places)
            if from_holder is not None:
                holder[key] = json.loads(json.dumps(from_holder[from_key]))
        elif way == 4:
            holder[key] = drawn.choice(([holder[key]], {str(key): holder[key]}, str(holder[key])))
        elif way == 5 and isinstance(holder[key], str):
            changed = self._bytes(holder[key].encode("utf-8", "surrogatepass"), other)
            holder[key] = changed.decode("utf-8", "surrogateescape")
        elif way == 6 and isinstance(holder[key], int | float):
            holder[key] = drawn.choice((-holder[key], holder[key] + 1, holder[key] * 1000, drawn.choice(NUMBERS)))
        else:
            holder[key] = deepcopy(drawn.choice(VALUES))
        return document


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Container and key of every node below `node`."""
    found: list[tuple[Any, Any]] = []
    pending = [node]
    while pending:
        holder = pending.pop()
        if isinstance(holder, dict):
            found += [(holder, key) for key in holder]
            pending += holder.values()
        elif isinstance(holder, list):
            found += [(holder, key) for key in range(len(holder))]
            pending += holder
    return found
