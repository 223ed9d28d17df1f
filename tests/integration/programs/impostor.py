"""Pretends to be a PETSc program: writes what it is told into the stream, true to form or not."""

import mmap
import os
import struct
import subprocess
import sys
import time

TIME, VECTOR = 1211213, 1211214
deed = sys.argv[1]
stream = sys.argv[-1].removeprefix("binary:")


def step(number: int, values: int = 6) -> bytes:
    """A time and a vector of its number."""
    return struct.pack(
        f">idii{values}d", TIME, 0.1 * number, VECTOR, values, *[float(number)] * values
    )


if os.environ.get("PMI_RANK", "0") != "0":
    time.sleep(600)  # as in PETSc, one rank writes
with open(stream, "wb", buffering=0) as file:
    for number in range(3):
        file.write(step(number))
    if deed == "truncated":
        file.write(step(3)[:-3])
    elif deed == "crash":
        sys.stderr.write("out of luck\n")
        os.abort()
    elif deed == "malformed":
        file.write(b"Hello, this is no PETSc.")
        time.sleep(600)
    elif deed == "endless":
        for number in range(3, 10**9):
            file.write(step(number))
    elif deed == "huge":
        file.write(struct.pack(">idii", TIME, 0.3, VECTOR, 2**31 - 1))
        time.sleep(600)
    elif deed == "nan":
        file.write(struct.pack(">idii6d", TIME, 0.3, VECTOR, 6, *[float("nan")] * 6))
    elif deed == "overflow":
        file.write(struct.pack(">idii6d", TIME, 0.3, VECTOR, 6, *[1e39] * 6))
    elif deed == "back":
        file.write(step(1))
    elif deed == "repeat":
        file.write(step(2) + step(3))
    elif deed == "stall":
        time.sleep(600)
    elif deed == "drip":
        for byte in step(3):
            file.write(bytes([byte]))
            time.sleep(0.2)
        time.sleep(600)
    elif deed == "chatter":
        while True:
            sys.stdout.write("still here\n" * 1000)
    elif deed == "daemon":
        subprocess.Popen(["sleep", "611"], start_new_session=True)
    elif deed == "segment":  # as a rank of MPICH that crashes
        with open(sys.argv[2], "w+b") as segment:
            segment.truncate(4096)
            mapped = mmap.mmap(segment.fileno(), 4096)
        time.sleep(0.1)
        os.abort()
    elif deed == "gift":
        with open("made_here", "w", encoding="utf-8") as made:
            made.write(os.getcwd())
    elif deed != "good":
        sys.exit(f"no deed {deed!r}")
