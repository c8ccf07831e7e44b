"""What accelerators can do at most, by the name that JAX gives them.

Sources: Google's pages of each TPU ("System architecture" of v4, v5e, v5p and v6e at docs.cloud.google.com/tpu/docs);
NVIDIA's data sheets of A100, H100, H200 and L4, without sparsity. Links are what a chip sends at once over all of its
links: half of the bidirectional figure of the sheets (v5e: 400 GB/s in both directions); for GPUs NVLink, within a
machine, or PCIe where there is none. A TPU's clock follows from its peak: flops = 2 x multipliers x clock, with four
arrays of 128 x 128 multipliers (v5e), eight (v4, v5p), and as many as four of 256 x 256 (v6e).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """An accelerator as `jax.devices()` lists it.

    Attributes:
        name: as people call it.
        tflops: 10^12 operations a second, of products of bfloat16 summed in float32.
        int8_tops: the same of 8-bit integers.
        memory_gib: its memory, of which the runtime keeps some.
        memory_gbps: bandwidth of its memory, 10^9 bytes a second.
        link_gbps: what it sends to other chips, one way, over all links together, 10^9 bytes a second.
        clock_ghz: of the cycles in which its compiler counts; 0 where the compiler tells none.
    """

    name: str
    tflops: float | int
    int8_tops: float | int
    memory_gib: float | int
    memory_gbps: float | int
    link_gbps: float | int
    clock_ghz: float = 0.0


_CHIPS = {
    "TPU v4": Chip("TPU v4", 275, 275, 32, 1228, 300, 1.05),
    "TPU v5 lite": Chip("TPU v5e", 197, 393, 16, 819, 200, 1.5),
    "TPU v5": Chip("TPU v5p", 459, 918, 95, 2765, 600, 1.75),
    "TPU v6 lite": Chip("TPU v6e", 918, 1836, 32, 1638, 400, 1.75),
    "NVIDIA A100-SXM4-40GB": Chip("A100 40 GB", 312, 624, 40, 1555, 300),
    "NVIDIA A100-SXM4-80GB": Chip("A100 80 GB", 312, 624, 80, 2039, 300),
    "NVIDIA A100 80GB PCIe": Chip("A100 80 GB PCIe", 312, 624, 80, 1935, 32),
    "NVIDIA H100 80GB HBM3": Chip("H100", 989, 1979, 80, 3350, 450),
    "NVIDIA H100 PCIe": Chip("H100 PCIe", 756, 1513, 80, 2000, 64),
    "NVIDIA H200": Chip("H200", 989, 1979, 140, 4800, 450),
    "NVIDIA L4": Chip("L4", 121, 242, 23, 300, 32),
}
_CHIPS["TPU v5e"], _CHIPS["TPU v5p"], _CHIPS["TPU v6e"] = (
    _CHIPS[kind] for kind in ("TPU v5 lite", "TPU v5", "TPU v6 lite")
)


def of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so, or None.

    Args:
        device_kind: `device.device_kind`.
    """
    return _CHIPS.get(device_kind)
