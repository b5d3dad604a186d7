"""ifvit/reporting/figure.py"""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from ifvit.reporting.comparison import Comparison, compare_runs
from ifvit.reporting.figure import figure_png, make_figure
from tests.evaluated_runs import write_run


def test_a_panel_for_each_plotted_number_and_the_speed(comparison: Comparison) -> None:
    axes = {axis.get_title(): axis for axis in make_figure(comparison).axes if axis.get_visible()}
    assert len(axes) == 9
    assert "paper's form (higher is better)" not in axes
    assert "average error (lower is better)" in axes
    panel = axes["match ratio (higher is better)"]
    points = {line.get_label(): list(line.get_xdata()) for line in panel.get_lines() if line.get_marker() != "None"}
    assert points["seen combinations (val)"] == [0.5, 0.6]
    assert points["unseen combinations"] == [0.4, 0.5]
    assert len(axes["training steps/s (higher is better)"].collections) == 3 - 1  # one mean for each pair of seeds


def test_rows_are_cells_or_names_where_cells_do_not_tell(comparison: Comparison, tmp_path: Path) -> None:
    def rows(compared: Comparison) -> list[str]:
        return [label.get_text() for label in make_figure(compared).axes[0].get_yticklabels()]

    assert rows(comparison) == ["concat\nearly", "cross-attention\nearly"]  # no row for what was not evaluated
    write_run(tmp_path, "slow")
    write_run(tmp_path, "fast", "optimizer.learning_rate=0.5")
    assert rows(compare_runs([str(tmp_path / "slow"), str(tmp_path / "fast")])) == ["slow", "fast"]


def test_a_number_that_the_first_run_lacks_has_its_panel(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path, name)
    (file,) = tmp_path.glob("one/evaluation/*/results.json")
    results = json.loads(file.read_text())
    for image_sets in results["splits"].values():
        for metrics in image_sets.values():
            del metrics["clip_score"]
    file.write_text(json.dumps(results))
    axes = {axis.get_title(): axis for axis in make_figure(compare_runs([f"{tmp_path}/one", f"{tmp_path}/two"])).axes}
    points = [list(line.get_xdata()) for line in axes["CLIP score (higher is better)"].get_lines()]
    assert [0.15] in points


def test_the_picture_is_1200_pixels_wide_and_not_blank(comparison: Comparison) -> None:
    image = Image.open(io.BytesIO(figure_png(comparison)))
    assert image.width == 1200
    assert np.asarray(image.convert("RGB")).std() > 10
