"""What a device can do at most, and what of its memory is in use."""

import os
from pathlib import Path

import torch

# Data sheets' dense peaks in TFLOP/s, of the tensor cores in bf16 with float32 sums, and of float32 without TF32, which
# is off here. The first name that is part of torch's name of a GPU decides.
PEAK_TFLOPS = {
    "B200": (2250.0, 75.0),
    "GH200": (989.4, 66.9),
    "H200 NVL": (835.5, 60.0),
    "H200": (989.4, 66.9),
    "H100 NVL": (835.5, 60.0),
    "H100 PCIe": (756.4, 51.2),
    "H100": (989.4, 66.9),
    "A100": (311.9, 19.5),
    "A30": (165.0, 10.3),
    "A40": (149.7, 37.4),
    "L40S": (362.1, 91.6),
    "L40": (181.1, 90.5),
    "RTX 6000 Ada": (364.2, 91.1),
    "RTX A6000": (154.8, 38.7),
    "RTX 5090": (209.5, 104.8),
    "RTX 4090": (165.2, 82.6),
    "RTX 3090": (71.0, 35.6),
}
OTHER_CHIPS = ("Laptop", "MIG ", "RTX 4090 D", "RTX 5090 D")  # less than the chip whose name they have


TRAINING_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # by train.precision: of weights in the forward pass


def peak_tflops(device: torch.device, precision: str) -> float | None:
    """The data sheet's dense peak of a GPU in `precision`, fp32 or bf16; None for a CPU or a GPU not in the table."""
    if device.type != "cuda":
        return None
    return peak_tflops_of(torch.cuda.get_device_name(device), precision)


def peak_tflops_of(name: str, precision: str) -> float | None:
    """As `peak_tflops`, of the GPU that torch calls `name`."""
    if any(other in name for other in OTHER_CHIPS):
        return None
    for part, (bf16, fp32) in PEAK_TFLOPS.items():
        if f" {part} " in f" {name.replace('-', ' ')} ":
            return bf16 if precision == "bf16" else fp32
    return None


def memory_bytes(device: torch.device) -> int:
    """The most that tensors on a GPU have taken since the start; on a CPU the resident set of this process now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
