"""What `llamaherd curves` measured, where its folders stand in the run's: best and median of N over N, and over temperature."""

from collections.abc import Mapping
from typing import Any

from .figures import Chart, figure_text, point_chart
from .folder import RunFolder, as_figure, dig


def curves_of(run: RunFolder) -> dict[str, Mapping[str, Any]]:
    """Metrics of the measured models, by the artifact's name."""
    return {
        name: artifact.metrics
        for name, artifact in run.artifacts.items()
        if artifact.manifest.get("stage") == "curves" and as_figure(artifact.metrics.get("best_temperature"))
    }


def curve_sentences(run: RunFolder) -> list[str]:
    """The best temperature of each."""
    return [
        f"{name}: the best of {[*metrics['max_score']][-1]} answers scores highest at temperature "
        f"{figure_text(as_figure(metrics['best_temperature']))}."
        for name, metrics in curves_of(run).items()
    ]


def curve_charts(run: RunFolder) -> list[Chart]:
    """Over N, at each model's best temperature, and over temperature, at each one's largest N."""
    found = curves_of(run)
    if not found:
        return []
    over_n: dict[str, Mapping[str, Any]] = {
        f"{name} {what}": metrics[key]
        for name, metrics in found.items()
        for what, key in (("best", "max_score"), ("median", "median_score"))
    }
    over_temperature: dict[str, Mapping[str, Any]] = {
        name: {at: dig(curves, "max", [*metrics["max_score"]][-1]) for at, curves in metrics["by_temperature"].items()}
        for name, metrics in found.items()
    }
    return [
        _lines("Score of the best and of the median of N, at the best temperature", over_n, "answers sampled"),
        _lines("Score of the best of all answers over temperature", over_temperature, "temperature"),
    ]


def _lines(title: str, curves: Mapping[str, Mapping[str, Any]], x_label: str) -> Chart:
    labels = sorted({label for curve in curves.values() for label in curve}, key=float)
    series = {name: [as_figure(curve.get(label)) for label in labels] for name, curve in curves.items()}
    return point_chart(title, labels, series, x_label, "score, 0 to 1", connect=True)
