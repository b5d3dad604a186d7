"""The data sheet's peak is found by the name that torch gives a GPU."""

import mmap

import pytest
import torch

from ifvit.runtime.devices import memory_bytes, peak_tflops, peak_tflops_of


@pytest.mark.parametrize(
    "name, bf16, fp32",
    [
        ("NVIDIA H200", 989.4, 66.9),
        ("NVIDIA H100 80GB HBM3", 989.4, 66.9),
        ("NVIDIA H100 PCIe", 756.4, 51.2),
        ("NVIDIA GH200 480GB", 989.4, 66.9),
        ("NVIDIA A100-SXM4-80GB", 311.9, 19.5),
        ("NVIDIA A40", 149.7, 37.4),
        ("NVIDIA L40S", 362.1, 91.6),
        ("NVIDIA GeForce RTX 4090", 165.2, 82.6),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None, None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None, None),
        ("Quadro P4000", None, None),
    ],
)
def test_peaks(name: str, bf16: float | None, fp32: float | None) -> None:
    assert (peak_tflops_of(name, "bf16"), peak_tflops_of(name, "fp32")) == (bf16, fp32)


def test_of_a_cpu_no_peak_is_known() -> None:
    assert peak_tflops(torch.device("cpu"), "fp32") is None


def test_memory_of_this_process() -> None:
    before = memory_bytes(torch.device("cpu"))
    with mmap.mmap(-1, 120_000_000) as pages:  # no allocator's: one may hold what other tests freed
        pages.write(bytes(120_000_000))
        assert memory_bytes(torch.device("cpu")) - before > 100_000_000
