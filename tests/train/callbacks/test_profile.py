"""The page about a profile, from spans that are written down; and a profiled run."""

from collections import Counter

import pytest

from capkit.cli import main
from capkit.train.callbacks.profile import Span, busy_us, summary

# Two steps in 4,000 us: kernels at 0 .. 600 and 500 .. 1,000 (overlapping), 3,000 .. 3,500.
SPANS = [
    Span("gemm", 0, 600, True),
    Span("copy", 500, 1000, True),
    Span("gemm", 3000, 3500, True),
    Span("cudaLaunchKernel", 0, 10, False),
    Span("cudaGraphLaunch", 20, 30, False),
    Span("cudaStreamSynchronize", 1000, 1400, False),
    Span("aten::mm", 0, 15, False),
]


def test_overlapping_kernels_keep_the_device_busy_once():
    assert busy_us(span for span in SPANS if span.on_device) == 1500
    assert busy_us([]) == 0


def test_the_page_counts_of_a_step():
    page = summary(SPANS, 2, 4000, Counter({"capkit/train/x.py:7": 3}), "a GPU")
    cells = [line.strip("| ").split(" | ") for line in page.splitlines()]
    rows = dict(row for row in cells if len(row) == 2)
    assert rows["wall time"] == "2.00 ms" and rows["device busy"] == "0.75 ms"
    assert rows["device idle"] == "1.25 ms, 62% of the time"
    assert rows["kernels and copies"] == "2" and rows["launches by the host"] == "1"
    assert rows["host waits"] == "0.5, in all 0.20 ms"
    assert rows["1.5"] == "capkit/train/x.py:7"
    assert "| 0.55 | 1 | `gemm` |" in page and page.index("`gemm`") < page.index("`copy`")


@pytest.mark.integration
def test_a_profiled_run_goes_on_and_leaves_trace_and_summary(tmp_path):
    words = ["fit", "debug=profile", "trainer=cpu", "trainer.devices=1", "max_steps=9", f"run_dir={tmp_path}"]
    counts = ["data.train.count=16", "data.val.count=4", "data.test.count=4", "controls=0", "data.batch_size=4"]
    assert main([*words, *counts, "callback=[recorder]"]) == 0
    page = (tmp_path / "profile" / "summary.md").read_text()
    assert page.startswith("# Profile of 3 training steps on a CPU") and "`aten::" in page
    assert (tmp_path / "profile" / "trace.json").stat().st_size > 10_000
