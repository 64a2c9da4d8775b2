"""Well-known accelerators: memory, dense bf16 speed and bandwidth, as their vendors publish them (docs/plan.md)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluenet.errors import CluenetError, suggestion

GB, TERA = 10**9, 10**12


@dataclass(frozen=True)
class Accelerator:
    """Figures of a data sheet. `memory_gb` counts 10^9 bytes: cards have a few per cent more than that, which is left as
    a margin for fragmentation."""

    name: str
    memory_gb: float
    bf16_tflops: float  # dense, without structured sparsity
    bandwidth_gb_per_second: float
    ray_type: str | None = None  # what Ray calls it among a cluster's resources, `accelerator_type:<this>`

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gb * GB)

    def seconds(self, operations: float, *, mfu: float) -> float:
        """Of `operations` at a share `mfu` of the published speed."""
        return operations / (mfu * self.bf16_tflops * TERA)


ACCELERATORS: dict[str, Accelerator] = {
    one.name: one
    for one in (
        Accelerator("a10g", 24, 70, 600, "A10G"),
        Accelerator("a100-40gb", 40, 312, 1555, "A100"),  # Ray has one name for both; the smaller one is safe
        Accelerator("a100-80gb", 80, 312, 2039, "A100-80G"),
        Accelerator("b200", 180, 2250, 8000, "B200"),
        Accelerator("h100", 80, 989, 3350, "H100"),
        Accelerator("h200", 141, 989, 4800, "H200"),
        Accelerator("l4", 24, 121, 300, "L4"),
        Accelerator("l40s", 48, 362, 864, "L40S"),
        Accelerator("mi300x", 192, 1307, 5300, "AMD-Instinct-MI300X-OAM"),
        Accelerator("rtx3090", 24, 71, 936, "GeForce-RTX-3090"),
        Accelerator("rtx4090", 24, 165, 1008, "GeForce-RTX-4090"),
    )
}
"""Keyed by name."""


def accelerator(name: str) -> Accelerator:
    """Raises CluenetError for a name that the table does not have."""
    if name.lower() not in ACCELERATORS:
        raise CluenetError(f"--accelerator: {name!r} is not in the table. {suggestion(name.lower(), ACCELERATORS)}")
    return ACCELERATORS[name.lower()]


def of_cluster(resources: Iterable[str]) -> Accelerator | None:
    """The smallest known accelerator among the names of a Ray cluster's resources; None where none is known."""
    types = {name.removeprefix("accelerator_type:") for name in resources if name.startswith("accelerator_type:")}
    found = [one for one in ACCELERATORS.values() if one.ray_type in types]
    return min(found, key=lambda one: one.memory_gb, default=None)
