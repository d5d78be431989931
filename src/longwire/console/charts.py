"""Charts: ECharts as SVG, so that the stylesheet colours them, in light and dark alike.

Each says its last values in words, for whoever does not see it.
"""

from collections.abc import Sequence
from typing import Any

from nicegui import ui

from longwire.console import theme, words
from longwire.console.parts import box, text

Value = float | None
_GRID = {"left": 8, "right": 28, "top": 12, "bottom": 4, "containLabel": True}


class _Chart:
    """A title with the last values, and the drawing below."""

    def __init__(self, title: str, series: Sequence[tuple[str, str]], unit: str, height: int) -> None:
        self._series = series
        self._unit = unit
        with box("lw-chart", "figure") as self.whole:
            with box("lw-chart-head", "figcaption"):
                text("span", title, "lw-chart-title")
                self._last = {}
                for place, (name, label) in enumerate(series):
                    with box(f"lw-legend series-{place % len(theme.SERIES)}", "span"):
                        text("span", label)
                        self._last[name] = text("span", words.UNKNOWN, "lw-number")
                if unit:
                    text("span", unit, "lw-unit")
            self._drawing = ui.echart(self._options(), renderer="svg").style(f"height: {height}px; width: 100%")
            self._drawing.props["role"] = "img"
            self._drawing.props["aria-label"] = title
        self._title = title

    def _options(self) -> dict[str, Any]:
        raise NotImplementedError

    def _tell(self, last: dict[str, Value]) -> None:
        for name, shown in self._last.items():
            shown.text = _number(last.get(name))
        said = ", ".join(f"{label} {_number(last.get(name))}" for name, label in self._series)
        self._drawing.props["aria-label"] = f"{self._title}: {said} {self._unit}".strip()


class Lines(_Chart):
    """Values over time. ``series``: (name, label); at most seven."""

    def __init__(
        self,
        title: str,
        series: Sequence[tuple[str, str]],
        *,
        unit: str = "",
        stacked: bool = False,
        height: int = 180,
    ) -> None:
        self._is_stacked = stacked
        super().__init__(title, series, unit, height)

    def set(self, at: Sequence[str | float], values: dict[str, Sequence[Value]]) -> None:
        """``at``: times of the API, rising; ``values``: by the series' name, None where unknown."""
        zone = theme.zone()
        options = self._drawing.options
        options["xAxis"]["data"] = [words.clock(one, zone) for one in at]
        for drawn, (name, _) in zip(options["series"], self._series, strict=True):
            drawn["data"] = list(values.get(name, ()))
        self._drawing.update()
        self._tell({name: _last(values.get(name, ())) for name, _ in self._series})

    def _options(self) -> dict[str, Any]:
        return {
            "animation": False,
            "grid": _GRID,
            "tooltip": {"trigger": "axis", "className": "lw-tooltip", "confine": True, "transitionDuration": 0},
            "xAxis": {
                "type": "category",
                "boundaryGap": False,
                "data": [],
                "axisTick": {"show": False},
                "axisLabel": {"hideOverlap": True},
            },
            "yAxis": {"type": "value", "splitNumber": 3, "min": 0, "minInterval": 0},
            "series": [
                {
                    "type": "line",
                    "name": label,
                    "data": [],
                    "showSymbol": False,
                    "connectNulls": False,
                    "stack": "all" if self._is_stacked else None,
                    "color": _colour(place),
                    "lineStyle": {"width": 1.5},
                    "areaStyle": {"opacity": 0.25} if self._is_stacked else None,
                    "emphasis": {"disabled": True},
                }
                for place, (_, label) in enumerate(self._series)
            ],
        }


class Bars(_Chart):
    """A number for each of some names: buckets of a latency, reasons."""

    def __init__(
        self,
        title: str,
        series: Sequence[tuple[str, str]],
        *,
        unit: str = "",
        stacked: bool = False,
        height: int = 180,
    ) -> None:
        self._is_stacked = stacked
        super().__init__(title, series, unit, height)

    def set(self, names: Sequence[str], values: dict[str, Sequence[Value]]) -> None:
        """``values``: by the series' name, one for each of ``names``."""
        options = self._drawing.options
        options["xAxis"]["data"] = list(names)
        for drawn, (name, _) in zip(options["series"], self._series, strict=True):
            drawn["data"] = list(values.get(name, ()))
        self._drawing.update()
        self._tell({name: sum(v or 0 for v in values.get(name, ())) for name, _ in self._series})

    def _options(self) -> dict[str, Any]:
        return {
            "animation": False,
            "grid": _GRID,
            "tooltip": {"trigger": "axis", "className": "lw-tooltip", "confine": True, "transitionDuration": 0},
            "xAxis": {"type": "category", "data": [], "axisTick": {"show": False}},
            "yAxis": {"type": "value", "splitNumber": 3, "minInterval": 1},
            "series": [
                {
                    "type": "bar",
                    "name": label,
                    "data": [],
                    "stack": "all" if self._is_stacked else None,
                    "barMaxWidth": 32,
                    "color": _colour(place),
                    "emphasis": {"disabled": True},
                }
                for place, (_, label) in enumerate(self._series)
            ],
        }


def _colour(place: int) -> str:
    return f"var(--{theme.SERIES[place % len(theme.SERIES)]})"


def _last(values: Sequence[Value]) -> Value:
    return values[-1] if values else None


def _number(value: Value) -> str:
    return words.short(value) if value is None or value >= 10 or value == int(value) else f"{value:.1f}"
