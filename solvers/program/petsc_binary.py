"""Reads what PETSc's binary viewer writes: bytes in, vectors out, nothing else touched.

A vector is two big-endian integers, class id 1211214 and length, and big-endian float64 values. A
time (of ``-ts_monitor binary:...``) is class id 1211213 and one float64.

1. The cut of the bytes does not show: fed one by one or all at once, they give the same records.
2. What is held is bounded: a header that does not fit ends the stream before any of its values.
3. Indices of 32 and of 64 bits are recognised; complex numbers, and precisions other than double,
   are refused before a value is handed out.
4. Every record is whole, there are at most ``most``, and those before a fault are handed out.
"""

from collections.abc import Iterator
from typing import NamedTuple, NoReturn, final

import numpy as np
from jaxtyping import Float64

TIME_ID = 1211213
VECTOR_ID = 1211214
_OTHERS = {
    1211216: "a matrix",
    1211217: "a local-to-global mapping",
    1211218: "an index set",
    1211219: "a bag",
    1211220: "a null space",
    1211221: "a DM",
}
_DOUBLE = 8


class StreamRefused(Exception):
    """Bytes that are not the announced vectors; the message says what they are instead."""


class Record(NamedTuple):
    """One vector."""

    number: int  # 0 for the first
    time: float | None  # None in a stream without times
    values: Float64[np.ndarray, " length"]  # big-endian, read only


@final
class VectorReader:
    """Turns a stream of bytes into records.

    The first vector is held back until what follows it shows that its values are doubles.

    Args:
        length: Values in every vector.
        timed: Whether a time stands before every vector.
        most: Vectors in the whole stream; one more is refused.

    Attributes:
        vectors: Number of records so far.
    """

    def __init__(self, *, length: int, timed: bool, most: int) -> None:
        self._length = length
        self._timed = timed
        self._most = most
        self._held = bytearray()
        self._integer = 0  # bytes of an index; 0 while unknown
        self._time: float | None = None
        self._inside = False  # after the header of a vector
        self.vectors = 0

    def feed(self, data: bytes) -> Iterator[Record]:
        """The records that ``data`` completes; to be taken before more is fed.

        Raises:
            StreamRefused: The stream is not what was announced; nothing after it can be trusted.
        """
        self._held += data
        while (record := self._next(ended=False)) is not None:
            yield record

    def finish(self) -> Iterator[Record]:
        """What was held back, once nothing more can come.

        Raises:
            StreamRefused: The stream ends inside a record.
        """
        while (record := self._next(ended=True)) is not None:
            yield record
        if self._held or self._inside or self._time is not None:
            raise StreamRefused(self._cut_short())

    def _next(self, *, ended: bool) -> Record | None:
        if not self._integer and not self._knows_integers():
            return None
        if self._timed and self._time is None and not self._take_time():
            return None
        if not self._inside and not self._take_header():
            return None
        if len(self._held) < self._length * _DOUBLE:
            return None
        if self.vectors == 0 and not self._holds_doubles(ended=ended):
            return None
        values = np.frombuffer(self._take(self._length * _DOUBLE), ">f8")
        record = Record(self.vectors, self._time, values)
        self.vectors, self._time, self._inside = self.vectors + 1, None, False
        return record

    def _knows_integers(self) -> bool:
        """PETSc writes class ids as its own integers: with 64 bits, four zero bytes come first."""
        if len(self._held) < 4 or (not any(self._held[:4]) and len(self._held) < 8):
            return False
        for size in (4, 8):
            found = int.from_bytes(self._held[:size], "big", signed=True)
            if found in (TIME_ID, VECTOR_ID) or found in _OTHERS:
                self._integer = size
                return True
        raise StreamRefused(
            f"the stream begins with {bytes(self._held[:16])!r}, which is no PETSc class id "
            f"({VECTOR_ID} for a vector): only PETSc may write into it"
        )

    def _take_time(self) -> bool:
        if len(self._held) < self._integer:
            return False
        self._require_id(TIME_ID)
        # A float32 time would let the class id of the vector show in the second half.
        if len(self._held) < self._integer + _DOUBLE:
            return False
        value = self._held[self._integer : self._integer + _DOUBLE]
        if self.vectors == 0 and int.from_bytes(value[4:], "big") == VECTOR_ID:
            raise StreamRefused(_other_precision("single"))
        self._take(self._integer)
        self._time = float(np.frombuffer(self._take(_DOUBLE), ">f8")[0])
        return True

    def _take_header(self) -> bool:
        if len(self._held) < self._integer:
            return False
        self._require_id(VECTOR_ID)
        if len(self._held) < 2 * self._integer:
            return False
        self._take(self._integer)
        length = int.from_bytes(self._take(self._integer), "big", signed=True)
        if length != self._length:
            raise StreamRefused(
                f"vector {self.vectors} has length {length}, but grid and components make "
                f"{self._length}. Correct them, or the program's own grid"
            )
        self._inside = True
        return True

    def _require_id(self, expected: int) -> None:
        found = self._id_at(0)
        if found != expected:
            what = {TIME_ID: "a time", VECTOR_ID: "a vector"} | _OTHERS
            raise StreamRefused(
                f"before vector {self.vectors} the stream has "
                f"{what.get(found, repr(bytes(self._held[:16])))} where {what[expected]} must be"
            )
        if self.vectors == self._most:
            raise StreamRefused(
                f"more than {self._most} vectors come, the initial state included. Raise steps, "
                "or let the program end"
            )

    def _holds_doubles(self, *, ended: bool) -> bool:
        """Whether a header, or the end, follows the first vector; refuses what cannot be one."""
        end = self._length * _DOUBLE
        beyond = len(self._held) - end
        if beyond == 0:
            return ended
        if beyond < self._integer:
            return self._refuse_first() if ended else False
        if self._id_at(end) in (TIME_ID, VECTOR_ID) or self._id_at(end) in _OTHERS:
            return True
        if ended or beyond >= end + self._integer:
            self._refuse_first()
        return False  # what stands where complex values would end will tell

    def _refuse_first(self) -> NoReturn:
        single, double, twice = (self._length * size for size in (4, 8, 16))
        known = (TIME_ID, VECTOR_ID)
        if len(self._held) == twice or (len(self._held) > twice and self._id_at(twice) in known):
            raise StreamRefused(
                "the values have 16 bytes each: the program's PETSc is built with complex numbers "
                "(or quadruple precision). Build it with --with-scalar-type=real"
            )
        if self._id_at(single) in known:
            raise StreamRefused(_other_precision("single"))
        raise StreamRefused(
            f"vector 0 is followed by {bytes(self._held[double : double + 16])!r}, not by a header"
        )

    def _cut_short(self) -> str:
        complete = f"the stream ends inside a record, after {self.vectors} whole vectors"
        if self.vectors == 0 and self._inside and len(self._held) == self._length * 4:
            return f"{complete}: {_other_precision('single')}"
        return complete

    def _id_at(self, start: int) -> int:
        return int.from_bytes(self._held[start : start + self._integer], "big", signed=True)

    def _take(self, count: int) -> bytes:
        taken = bytes(memoryview(self._held)[:count])
        del self._held[:count]
        return taken


def _other_precision(name: str) -> str:
    return (
        f"the values have {name} precision. Build the program's PETSc with --with-precision=double"
    )
