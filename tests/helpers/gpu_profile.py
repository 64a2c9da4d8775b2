"""Where a device's time goes, by torch's operators (torch.profiler)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from torch.profiler import ProfilerActivity, profile

from helpers.gpu_tier import wait_for


@dataclass(frozen=True)
class Profile:
    """`busy`: share of the clock's seconds in which the device computes; the profiler itself makes them longer. `shares`: of the
    device's time, by operator, the largest first. `launches`: operators that started something on the device."""

    busy: float
    shares: dict[str, float]
    launches: int

    @classmethod
    def of(cls, work: Callable[[], object], device: str) -> Profile:
        """Of a second run of `work`."""
        gpu = device.startswith("cuda")
        work()
        wait_for(device)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as found:
            started = time.perf_counter()
            work()
            wait_for(device)
            seconds = time.perf_counter() - started
        kind = "self_device_time_total" if gpu else "self_cpu_time_total"
        operators = [one for one in found.key_averages() if one.key.startswith("aten::")]
        times = {one.key.removeprefix("aten::"): float(getattr(one, kind)) for one in operators}
        whole = sum(times.values()) or 1.0
        ordered = sorted(times.items(), key=lambda pair: -pair[1])
        launches = sum(one.count for one in operators if getattr(one, kind) > 0)
        return cls(1e-6 * whole / seconds, {name: part / whole for name, part in ordered}, launches)

    def largest(self, count: int = 8) -> str:
        return ", ".join(f"{name} {share:.0%}" for name, share in list(self.shares.items())[:count])
