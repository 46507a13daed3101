#!/usr/bin/env python3
"""Draws terminal output as an SVG picture: mlxt demo | terminal-svg.py "mlxt demo" > docs/demo.svg"""

import sys
import unicodedata
from html import escape

WIDTH, LINE, MARGIN, TOP = 8.0, 19, 18, 44
STYLE = "font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre"


def columns(text):
    """Terminal columns: East Asian wide characters take two, combining marks none."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else wide.get(unicodedata.east_asian_width(c), 1) for c in text)


def main(title):
    lines = sys.stdin.read().rstrip("\n").split("\n")
    width = 2 * MARGIN + WIDTH * max(columns(line) for line in [*lines, title])
    height = TOP + LINE * len(lines) + MARGIN
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" role="img" aria-label="{escape(title)}">')
    print(f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#1b1f24"/>')
    for i, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"]):
        print(f'<circle cx="{MARGIN + 4 + 18 * i}" cy="20" r="5.5" fill="{colour}"/>')
    print(f'<text x="{width / 2:.0f}" y="24" fill="#8b949e" text-anchor="middle" style="{STYLE}">{escape(title)}</text>')
    print(f'<g fill="#e6edf3" xml:space="preserve" style="{STYLE}">')
    for i, line in enumerate(lines):
        if line.strip():
            # The indent as a place, not as spaces: a viewer that folds white space would lose it.
            indent = len(line) - len(line.lstrip(" "))
            x = MARGIN + WIDTH * indent
            print(f'<text x="{x:.0f}" y="{TOP + LINE * i + 14}">{escape(line.lstrip(" "))}</text>')
    print("</g>\n</svg>")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
