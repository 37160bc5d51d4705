"""Fixtures of the tests of the core."""

import pytest
from torch.profiler import ProfilerActivity, profile


@pytest.fixture
def peak():
    def peak(function):
        """Bytes at the highest point above the start."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            function()
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        held = highest = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            held += event.nbytes()
            highest = max(highest, held)
        return highest

    return peak
