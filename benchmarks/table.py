"""The README's table of speed, made of the figures of a file."""

from typing import Final

from benchmarks.figures import Figure

# What a row says, and the figures that it shows.
ROWS: Final = {
    "trainer on a live reservoir, against the same on a resident tensor": ("live_vs_resident",),
    "batches of 32 x 256 KB drawn while two senders insert": ("draw_256k",),
    "16 KB samples into slots on one node": ("ingest_16k.direct",),
    "the same, against one core that copies": ("ingest_16k.over_memcpy",),
    "the same, against a Ray actor call per sample": ("ingest_16k_vs_ray_awaited",),
    "the same, against Ray actor calls with the same batching": ("ingest_16k_vs_ray_batched",),
    "256 KB samples into slots on one node": ("ingest_256k.bytes",),
    "256 KB / 4 MB samples, against one core that copies": (
        "ingest_256k.over_memcpy", "ingest_4m.over_memcpy",
    ),
    "16 KB / 256 KB samples over TCP with CURVE": ("ingest_16k.curve", "ingest_256k.curve"),
    "rate with 256 connected senders, against the best number of senders": ("producers",),
    "a heat member with streaming, against the bare PETSc loop (64 / 128 / 256 points an axis)": (
        "stream_overhead.64", "stream_overhead.128", "stream_overhead.256",
    ),
    "samples of members on two mpi_ranks, against serial ones (256 x 256, bytes/s)": (
        "ingest_mpi",
    ),
    "samples/s kept under 100,000 fuzzed frames and 1,200 idle or hostile connections": (
        "fuzz_ingest",
    ),
    "train steps/s with a checkpoint of a 1 GB reservoir every minute, against none": (
        "checkpoint_cost",
    ),
    "samples/s with every sample recorded / what the disk alone takes": (
        "record_cost.ingest", "record_cost.disk",
    ),
    "growth of memory over the second half of a run of 250,000 samples": ("growth",),
}  # fmt: skip


def table(figures: list[Figure]) -> str:
    """Markdown; rows of which a figure is missing are left out."""
    by_name = {figure.name: figure for figure in figures}
    lines = ["| | measured | bar |", "|---|---|---|"]
    for text, named in ROWS.items():
        if all(name in by_name for name in named):
            shown = [by_name[name] for name in named]
            bars = [each.bar for each in shown]
            lines.append(
                f"| {text} | {_cell(shown, [each.value for each in shown])} "
                f"| {_cell(shown, bars) if any(bars) else ''} |"
            )
    return "\n".join(lines) + "\n"


def _cell(figures: list[Figure], values: list[float]) -> str:
    unit = figures[0].unit
    numbers = " / ".join(_number(value) for value in values)
    return f"{numbers} {unit}" if unit in ("GB/s", "samples/s", "times") else numbers


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
