"""A sender that streams one member after another, as fast as the reservoir takes them."""

from multiprocessing.synchronize import Event

import numpy as np

from benchmarks.stream_rig import SENDING
from pipeline.slots.layout import SampleLayout
from pipeline.stream.endpoint import Endpoint, StudyKeys
from pipeline.stream.sender import Sender


def send_until(endpoint: Endpoint, keys: StudyKeys, layout: SampleLayout, stop: Event) -> None:
    """Random fields and parameters until the event is set."""
    sender = Sender([endpoint], layout=layout, keys=keys, **SENDING)
    rng = np.random.default_rng(1)
    fields = rng.random((16, layout.window, *layout.sample_shape), np.float32)
    member = 0
    while not stop.is_set():
        parameters = rng.random(layout.num_parameters)
        sender.open(member=member, attempt=1, parameters=parameters, validation=False)
        for step in range(100):
            times = 0.01 * (step + np.arange(layout.window))
            sender.send(sample=step, step=step, times=times, fields=fields[step % 16])
            if stop.is_set():
                break
        member += 1
