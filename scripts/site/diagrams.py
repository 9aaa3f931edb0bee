"""Draw the Mermaid diagrams of the pages as SVG, so that the site needs no script from another host.

The two forms that the pages use are supported: ``flowchart TD`` and ``stateDiagram-v2``. The longest path from a node
without incoming arrows gives a node its layer. Arrows over several layers get a point in each layer between.
"""

from __future__ import annotations

__all__ = ["draw", "parse", "replace_diagrams"]

import html
import itertools
import re
from collections import defaultdict
from typing import Final

_BLOCK: Final = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ARROW: Final = re.compile(r"^\s*(\S+)\s*-->\s*(\S+?)(?::\s*(.+))?$", re.MULTILINE)
_NODE_HEIGHT, _LAYER_HEIGHT, _CHARACTER, _GAP, _GAP_LABELED = 30, 78, 7.6, 26, 84
_SWEEPS: Final = 12

Edges = dict[tuple[str, str], list[str]]


def parse(source: str) -> Edges:
    """Return the arrows of a Mermaid diagram with their labels. ``[*]`` and loops are part of it."""
    edges: Edges = {}
    for start, end, label in _ARROW.findall(source):
        edges.setdefault((start, end), []).extend([label] if label else [])
    return edges


def _layers(edges: Edges) -> dict[str, int]:
    """Return the layer of each node: the longest path to it. An arrow back to an earlier node does not count."""
    layers: dict[str, int] = {}
    order = list(dict.fromkeys(node for edge in edges for node in edge))
    rank = {node: number for number, node in enumerate(order)}
    is_cyclic = any((end, start) in edges for start, end in edges if start != end)
    forward = [(a, b) for a, b in edges if a != b and (not is_cyclic or rank[a] < rank[b])]
    layers = dict.fromkeys(order, 0)
    for _ in order:
        for start, end in forward:
            layers[end] = max(layers[end], layers[start] + 1)
    return layers


def _ordered(layers: dict[str, int], links: list[tuple[str, str]]) -> list[list[str]]:
    """Return the nodes of each layer in an order with few crossings (the barycenter heuristic)."""
    rows: list[list[str]] = [[] for _ in range(max(layers.values()) + 1)]
    for node, layer in layers.items():
        rows[layer].append(node)
    neighbors: dict[str, list[str]] = defaultdict(list)
    for start, end in links:
        neighbors[start].append(end)
        neighbors[end].append(start)
    for sweep in range(_SWEEPS):
        place = {node: index / max(1, len(row) - 1) for row in rows for index, node in enumerate(row)}
        for row in rows if sweep % 2 == 0 else reversed(rows):
            weights = {node: sum(place[one] for one in neighbors[node]) / max(1, len(neighbors[node])) for node in row}
            row.sort(key=weights.__getitem__)
            place |= {node: index / max(1, len(row) - 1) for index, node in enumerate(row)}
    return rows


def draw(source: str, title: str) -> str:
    """Return a Mermaid diagram as an SVG element.

    Args:
        source: the diagram's text, without the fence.
        title: its description for readers who do not see it.
    """
    edges = {edge: labels for edge, labels in parse(source).items() if "[*]" not in edge}
    loops = {start: labels for (start, end), labels in edges.items() if start == end}
    layers = _layers(edges)
    nodes = list(layers)
    paths: list[tuple[list[str], list[str]]] = []
    links: list[tuple[str, str]] = []
    for (start, end), labels in edges.items():
        if start == end:
            continue
        step = 1 if layers[end] > layers[start] else -1
        between = [f"{start}>{end}>{layer}" for layer in range(layers[start] + step, layers[end], step)]
        layers |= {point: layers[start] + step * (number + 1) for number, point in enumerate(between)}
        path = [start, *between, end]
        paths.append((path, labels))
        links += itertools.pairwise(path)
    rows = _ordered(layers, links)
    gap, height_of_layer = (_GAP_LABELED, 130) if any(labels for _, labels in paths) else (_GAP, _LAYER_HEIGHT)
    widths = {node: max(44.0, _CHARACTER * len(node) + 18) if node in nodes else 14.0 for node in layers}
    lengths = [sum(widths[node] + gap for node in row) for row in rows]
    width = max(lengths) + gap
    x: dict[str, float] = {}
    for row, length in zip(rows, lengths, strict=True):
        left, spread = gap / 2, (width - length) / (len(row) + 1)
        for node in row:
            left += spread
            x[node] = left + (widths[node] + gap) / 2
            left += widths[node] + gap
    y = {node: 24.0 + height_of_layer * layer for node, layer in layers.items()}
    parts = [_arrow(path, x, y) for path, _ in paths]
    parts += [_box(node, x[node], y[node], widths[node], loops.get(node, [])) for node in nodes]
    labeled = sorted((one for one in paths if one[1]), key=lambda one: (y[one[0][0]], x[one[0][0]] + x[one[0][1]]))
    parts += [_label(path, labels, number, x, y) for number, (path, labels) in enumerate(labeled)]
    height = 24 + height_of_layer * (len(rows) - 1) + 44
    return (
        f'<svg viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" role="img" aria-label="{html.escape(title)}">'
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path class="head" d="M0 0L8 4L0 8z"/></marker></defs>{"".join(parts)}</svg>'
    )


def _arrow(path: list[str], x: dict[str, float], y: dict[str, float]) -> str:
    down = y[path[-1]] > y[path[0]]
    side = _NODE_HEIGHT / 2 if down else -_NODE_HEIGHT / 2
    if y[path[-1]] == y[path[0]]:  # neighbors of one layer
        (a, b), bend = (path[0], path[-1]), y[path[0]] + 44
        return (
            f'<path class="edge" marker-end="url(#head)" d="M{x[a]:.0f} {y[a] + 15:.0f}'
            f'C{x[a]:.0f} {bend:.0f} {x[b]:.0f} {bend:.0f} {x[b]:.0f} {y[b] + 16:.0f}"/>'
        )
    aside = 9 if down else -9  # an arrow and its opposite run side by side
    points = [(x[node] + aside, y[node]) for node in path]
    points[0] = (points[0][0], points[0][1] + side)
    points[-1] = (points[-1][0], points[-1][1] - side)
    text = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (ax, ay), (bx, by) in itertools.pairwise(points):
        middle = (ay + by) / 2
        text += f"C{ax:.0f} {middle:.0f} {bx:.0f} {middle:.0f} {bx:.0f} {by:.0f}"
    return f'<path class="edge" marker-end="url(#head)" d="{text}"/>'


def _box(node: str, x: float, y: float, width: float, loops: list[str]) -> str:
    note = f"<title>{html.escape(f'stays {node}: ' + ', '.join(loops))}</title>" if loops else ""
    return (
        f'<g>{note}<rect class="node" rx="6" x="{x - width / 2:.0f}" y="{y - _NODE_HEIGHT / 2:.0f}" '
        f'width="{width:.0f}" height="{_NODE_HEIGHT}"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}" text-anchor="middle">{html.escape(node)}</text></g>'
    )


def _label(path: list[str], labels: list[str], number: int, x: dict[str, float], y: dict[str, float]) -> str:
    """Return the label of an arrow, on its first part. Neighboring labels are at different heights."""
    text, (a, b) = ", ".join(labels), path[:2]
    t = 0.35 if y[a] == y[b] else (0.3, 0.55, 0.8)[number % 3]
    left = x[a] + (x[b] - x[a]) * (3 * t**2 - 2 * t**3)  # the curve of _arrow
    top = y[a] + (y[b] - y[a]) * t + (34 if y[a] == y[b] else 0)
    wide = 6.4 * len(text) + 6
    return (
        f'<rect class="label" x="{left - wide / 2:.0f}" y="{top - 9:.0f}" width="{wide:.0f}" height="17"/>'
        f'<text x="{left:.0f}" y="{top + 4:.0f}" text-anchor="middle" style="font-size:11px">{html.escape(text)}</text>'
    )


def replace_diagrams(text: str) -> str:
    """Return a page with each Mermaid block replaced by a figure."""

    def replaced(match: re.Match[str]) -> str:
        title = "States and steps" if match[1].startswith("stateDiagram") else "Imports between packages"
        return f'<figure class="diagram">{draw(match[1], title)}</figure>\n'

    return _BLOCK.sub(replaced, text)
