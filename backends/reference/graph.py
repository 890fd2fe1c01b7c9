"""The computational graph of a program as SVG, drawn in layers without any other program.

K. Sugiyama, S. Tagawa, M. Toda, "Methods for visual understanding of hierarchical system structures", IEEE
Transactions on Systems, Man, and Cybernetics 11(2), 1981: layers by the longest path from an input, long edges
through a place in every layer that they pass, and within the layers the order that barycentres give, swept down and
up. Inputs are on top. (Of the libraries at hand networkx orders nothing within a layer, and grandalf is under the GPL.)
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from adbridge.backends.reference.formulas import constant, formula, names_of, numbered
from adbridge.backends.reference.primitives import Var
from adbridge.backends.reference.program import Program
from adbridge.backends.reference.show import BAR, short, text_width

FONT, LINE = 13, 17  # pixels: of a monospaced font, whose widths are known
ADVANCE = 0.602 * FONT
PADDING, GAP, BETWEEN, MARGIN = 10, 22, 44, 16
_SWEEPS = 12
_LONGEST = 48  # characters of a line

_FILL = {"input": "#e3f0fb", "step": "#ffffff", "output": "#e9f5e3"}


@dataclass
class Node:
    """A box of lines of text; with none, a place where a long edge passes."""

    kind: str
    lines: tuple[str, ...] = ()
    layer: int = 0
    above: list[Node] = field(default_factory=list)
    below: list[Node] = field(default_factory=list)
    x: float = 0.0

    @property
    def width(self) -> float:
        return max((text_width(line) for line in self.lines), default=0) * ADVANCE + 2 * PADDING * bool(self.lines)

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + PADDING


def to_svg(program: Program, path: str | Path | None = None, notes: dict[int, str] | None = None) -> str:
    """The graph as SVG text, also written to `path`; `notes` adds a line to each variable's box, by its index."""
    layers = _layers(_nodes(program, notes or {}))
    _order(layers)
    _place(layers)
    text = _drawn(layers)
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def _nodes(program: Program, notes: dict[int, str]) -> list[Node]:
    names, values = names_of(program), {} if program.run is None else program.run.values
    found: dict[int, Node] = {}
    nodes = []

    def box(kind: str, left: str, right: str, x: Any) -> Node:
        index = x.index if type(x) is Var else -1
        lines = [f"{left} = {right}", *([short(values[index])] if index in values else [])]
        if index in notes and kind != "output":
            lines.append(notes[index])
        nodes.append(Node(kind, tuple(_cut(line) for line in lines)))
        return nodes[-1]

    for var, x in zip(program.inputs, numbered("x", len(program.inputs)), strict=True):
        found[var.index] = box("input", names[var.index], x, var)
    for eq in program.equations:
        node = found[eq.output.index] = box("step", names[eq.output.index], formula(eq, names), eq.output)
        for index in {x.index: None for x in eq.inputs if type(x) is Var}:
            _join(found[index], node)
    for y, out in zip(numbered("y", len(program.outputs)), program.outputs, strict=True):
        node = box("output", y, names[out.index] if type(out) is Var else constant(out).text, out)
        if type(out) is Var:
            _join(found[out.index], node)
    return nodes


def _cut(line: str) -> str:
    return line if text_width(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _join(upper: Node, lower: Node) -> None:
    upper.below.append(lower)
    lower.above.append(upper)


def _layers(nodes: Sequence[Node]) -> list[list[Node]]:
    """By the longest path from the top (the nodes are in order of execution), with places for long edges."""
    for node in nodes:
        node.layer = 1 + max((upper.layer for upper in node.above), default=-1)
    for node in reversed(nodes):
        lowest = min((lower.layer for lower in node.below), default=0) - 1
        # Just above the first use, if not more edges get longer than the one below gets shorter.
        if lowest > node.layer and len(_lengthens(node, lowest)) < 2:
            node.layer = lowest
    last = max((node.layer for node in nodes), default=0)
    for node in nodes:
        if node.kind == "output":
            node.layer = last
    layers: list[list[Node]] = [[] for _ in range(last + 1)]
    for node in nodes:
        layers[node.layer].append(node)
    for node in nodes:
        for lower in [n for n in node.below if n.layer > node.layer + 1]:
            _lead(node, lower, layers)
    return layers


def _lengthens(node: Node, layer: int, depth: int = 20) -> set[int]:
    """Those whose edges, which share their places, reach further down if `node` sinks to `layer`.

    What has no other successor sinks along.
    """
    found: set[int] = set()
    for upper in node.above:
        if any(other.layer >= layer for other in upper.below if other is not node):
            continue
        sinks = len(upper.below) == 1 and upper.above and depth
        found |= _lengthens(upper, layer - 1, depth - 1) if sinks else {id(upper)}
    return found


def _lead(upper: Node, lower: Node, layers: list[list[Node]]) -> None:
    """One edge through a place in every layer between; edges from one node share them as far as they go."""
    upper.below.remove(lower)
    lower.above.remove(upper)
    for layer in range(upper.layer + 1, lower.layer):
        place = next((n for n in upper.below if n.kind == "place"), None)
        if place is None:
            place = Node("place", layer=layer)
            layers[layer].append(place)
            _join(upper, place)
        upper = place
    _join(upper, lower)


def _order(layers: list[list[Node]]) -> None:
    """Within each layer by the mean place of the neighbours, downwards and upwards; the best order found is kept."""
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for upper, lower in pairwise(layers) if down else _pairs_from_below(layers):
            fixed, moved = (upper, lower) if down else (lower, upper)
            place = {id(node): i for i, node in enumerate(fixed)}
            own = {id(node): i for i, node in enumerate(moved)}
            moved.sort(key=lambda n: _mean([place[id(m)] for m in (n.above if down else n.below)], own[id(n)]))
        if (found := _crossings(layers)) < fewest:
            best, fewest = [list(layer) for layer in layers], found
    layers[:] = best


def _pairs_from_below(layers: list[list[Node]]) -> Iterator[tuple[list[Node], list[Node]]]:
    return reversed(list(pairwise(layers)))


def _mean(numbers: Sequence[float], default: float) -> float:
    return sum(numbers) / len(numbers) if numbers else default


def _crossings(layers: list[list[Node]]) -> int:
    """Pairs of edges between neighbouring layers that cross: inversions, counted by insertion."""
    total = 0
    for upper, lower in pairwise(layers):
        place = {id(node): i for i, node in enumerate(lower)}
        seen: list[int] = []
        for node in upper:
            ends = sorted(place[id(n)] for n in node.below)
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _place(layers: list[list[Node]]) -> None:
    """Layers centred first; then every node drawn to the middle of its neighbours, as far as its layer lets it."""
    for layer in layers:
        x = -sum(node.width + GAP for node in layer) / 2
        for node in layer:
            node.x = x + node.width / 2
            x += node.width + GAP
    for sweep in range(2 * _SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _draw_to_middle(layer)
    left = min((n.x - n.width / 2 for layer in layers for n in layer), default=0.0)
    for node in (n for layer in layers for n in layer):
        node.x += MARGIN - left


def _draw_to_middle(layer: list[Node]) -> None:
    """The places nearest to the wanted ones, in the sense of least squares, that keep order and distances.

    Nodes that would overlap form a block at the mean of what they want (pool adjacent violators).
    """
    blocks: list[list[float]] = []  # sum of wanted places of the block's first node, number of nodes
    offset, offsets = 0.0, []
    for i, node in enumerate(layer):
        offset += (layer[i - 1].width + node.width) / 2 + GAP if i else 0.0
        offsets.append(offset)
        blocks.append([_mean([n.x for n in (*node.above, *node.below)], node.x) - offset, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            wanted, count = blocks.pop()
            blocks[-1][0] += wanted
            blocks[-1][1] += count
    starts = [wanted / count for wanted, count in blocks for _ in range(int(count))]
    for node, start, extra in zip(layer, starts, offsets, strict=True):
        node.x = start + extra


def _drawn(layers: list[list[Node]]) -> str:
    nodes = [node for layer in layers for node in layer]
    tops, y = [], float(MARGIN)
    for layer in layers:
        tops.append(y)
        y += max((node.height for node in layer), default=0.0) + BETWEEN
    width = max((n.x + n.width / 2 for n in nodes), default=0.0) + MARGIN
    height = y - BETWEEN + MARGIN
    heights = [max((node.height for node in layer), default=0.0) for layer in layers]
    parts = [_edge(n, m, tops, heights) for n in nodes for m in n.below]
    parts += [_box(node, tops[node.layer]) for node in nodes if node.lines]
    return "\n".join([_HEAD.format(width=round(width), height=round(height), font=FONT), *parts, "</svg>\n"])


_HEAD = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" \
font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{font}">
<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>
<rect width="100%" height="100%" fill="white"/>"""


def _edge(upper: Node, lower: Node, tops: list[float], heights: list[float]) -> str:
    """A smooth curve, upright at both ends; through a layer that it only passes, a straight line."""
    start = tops[upper.layer] + (upper.height if upper.lines else heights[upper.layer])
    end = tops[lower.layer]
    middle = (start + end) / 2
    curve = f"M{upper.x:.1f},{start:.1f} C{upper.x:.1f},{middle:.1f} {lower.x:.1f},{middle:.1f} {lower.x:.1f},{end:.1f}"
    if not lower.lines:
        curve += f" V{end + heights[lower.layer]:.1f}"
    arrow = ' marker-end="url(#arrow)"' if lower.lines else ""
    return f'<path d="{curve}" fill="none" stroke="#555"{arrow}/>'


def _box(node: Node, top: float) -> str:
    left = node.x - node.width / 2
    box = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{node.width:.1f}" height="{node.height:.1f}" rx="5" '
        f'fill="{_FILL[node.kind]}" stroke="#555"/>'
    )
    lines = (
        _text(line, node.x, top + PADDING / 2 + LINE * (i + 0.78), "" if i == 0 else _GREY)
        for i, line in enumerate(node.lines)
    )
    return "\n".join([box, *lines])


def _text(line: str, x: float, y: float, style: str) -> str:
    """A centred line; bars are drawn, for many fonts set a combining bar beside its letter."""
    letters = unicodedata.normalize("NFD", line)
    plain = letters.replace(BAR, "")
    parts = [f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{style}>{escape(plain)}</text>']
    for i, found in enumerate(re.finditer(BAR, letters)):
        left = x + (found.start() - 1 - i - len(plain) / 2) * ADVANCE
        parts.append(f'<path d="M{left + 1:.1f},{y - 9:.1f} h{ADVANCE - 2:.1f}" stroke="#456"/>')
    return "\n".join(parts)


_GREY = ' fill="#456"'
