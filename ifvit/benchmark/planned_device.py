"""GPUs that a plan can be made for, by name: their makers' data sheets."""

from dataclasses import dataclass

from ifvit.runtime.devices import PEAK_TFLOPS


@dataclass(frozen=True)
class PlannedDevice:
    """One kind of GPU. Rates are peaks without sparsity; GB are 10^9 bytes.

    Attributes:
        name: as a plan is asked for it.
        bf16_tflops: of matrix products in bf16 that add up in float32.
        fp32_tflops: of float32 without TF32.
        memory_gb: of the device.
        bandwidth_gb_per_second: of its memory.
        link_gb_per_second: to the other GPUs of its machine, each way.
    """

    name: str
    bf16_tflops: float
    fp32_tflops: float
    memory_gb: float
    bandwidth_gb_per_second: float
    link_gb_per_second: float


# Name: in PEAK_TFLOPS, memory in GB, its GB/s, and those of NVLink or PCIe.
MEMORY = {
    "b200": ("B200", 180, 7700, 900),
    "h200": ("H200", 141, 4800, 450),
    "h100": ("H100", 80, 3350, 450),
    "h100-pcie": ("H100 PCIe", 80, 2000, 64),
    "a100": ("A100", 80, 2039, 300),
    "a100-40": ("A100", 40, 1555, 300),
    "a40": ("A40", 48, 696, 32),
    "l40s": ("L40S", 48, 864, 32),
    "5090": ("RTX 5090", 32, 1792, 64),
    "4090": ("RTX 4090", 24, 1008, 32),
    "3090": ("RTX 3090", 24, 936, 32),
}


def device_named(name: str) -> PlannedDevice | None:
    """The GPU that a plan calls `name` ("h200"), or None."""
    if name.lower() not in MEMORY:
        return None
    chip, memory_gb, bandwidth, link = MEMORY[name.lower()]
    return PlannedDevice(name.lower(), *PEAK_TFLOPS[chip], memory_gb, bandwidth, link)
