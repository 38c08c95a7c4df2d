"""Geometry of line charts, for SVG: scales, ticks and points."""

import dataclasses
import math
from collections.abc import Mapping

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24  # margins around the plot
MAX_POINTS = 400  # per line; more cannot be seen


@dataclasses.dataclass
class Line:
  """One line: its name, the SVG points "x,y x,y ...", its last value and single points."""

  name: str
  points: str
  last: float
  dots: list[tuple[float, float]]


@dataclasses.dataclass
class Chart:
  """A chart: lines, and ticks as (position, text) on both axes."""

  title: str
  lines: list[Line]
  x_ticks: list[tuple[float, str]]
  y_ticks: list[tuple[float, str]]


def line_chart(title: str, series: Mapping[str, Mapping[int, float]]) -> Chart:
  """Returns a chart of lines over steps.

  Args:
    title: heading.
    series: name of the line -> step -> finite value; at least one value in all.
  """
  values = [value for line in series.values() for value in line.values()]
  steps = [step for line in series.values() for step in line]
  y_ticks = ticks(min(values), max(values))
  low, high = min(y_ticks[0], *values), max(y_ticks[-1], *values)
  first, last = min(steps), max(steps)

  def at_x(step):
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / max(last - first, 1), 1)

  def at_y(value):
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

  lines = []
  for name, line in series.items():
    if not line:
      continue
    shown = sorted(line.items())
    shown = [*shown[:: math.ceil(len(shown) / MAX_POINTS)], shown[-1]]
    points = list(dict.fromkeys((at_x(step), at_y(value)) for step, value in shown))
    text = " ".join(f"{x},{y}" for x, y in points)
    lines.append(Line(name, text, shown[-1][1], points if len(points) <= 12 else []))
  return Chart(
    title,
    lines,
    [(at_x(step), f"{step:,}") for step in dict.fromkeys((first, (first + last) // 2, last))],
    [(at_y(value), f"{value:.6g}") for value in y_ticks],
  )


def ticks(low: float, high: float) -> list[float]:
  """Returns 3 to 6 round values that span low to high; example: 0.03, 0.97 -> 0, 0.2, ..., 1."""
  if high <= low:
    spread = abs(low) or 1.0
    low, high = low - spread / 2, low + spread / 2
  exponent = math.floor(math.log10((high - low) / 4))
  sizes = [factor * 10.0 ** (exponent + more) for more in (0, 1) for factor in (1, 2, 5)]
  size = next(size for size in sizes if math.ceil(high / size) - math.floor(low / size) <= 5)
  return [
    float(f"{index * size:.12g}")
    for index in range(math.floor(low / size), math.ceil(high / size) + 1)
  ]
