"""card.png: a run in one picture of 1200 × 630 pixels, the size that sites show beside a link."""

from pathlib import Path
from typing import Any

from comp.evaluation.card import Card
from comp.plots.style import ACCENT, BAD, GOOD, MAIN, MUTED, escape_text, new_figure, save, styled, wrapped

WIDTH, HEIGHT, DPI = 12.0, 6.3, 100  # inches
MARGIN, SIDE, GAP = 0.35, 1.72, 0.196  # of the images
CAPTION = 29  # characters


def draw(card: Card, path: Path) -> None:
    """Write the card as PNG."""
    save(new_card(card), path, dpi=DPI)


@styled
def new_card(card: Card) -> Any:
    """Return the card as a figure. What a run does not have is left out."""
    figure = new_figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    _draw_texts(figure, card)
    if card.curves:
        alone = not card.classes and not len(card.points)
        _draw_curves(_panel(figure, 4.75, 0.75, 6.8 if alone else 3.0, 2.35), card)
    if card.classes:
        _draw_classes(_panel(figure, 9.75, 0.75, 1.75, 2.6), card)
    elif len(card.points):
        _draw_points(_panel(figure, 9.0, 0.75, 2.6, 2.35), card)
    top = HEIGHT - 2.55
    figure.text(
        MARGIN / WIDTH, 2.62 / HEIGHT, "six held-out images, picked at random", fontsize=9, color="#5f6368"
    )
    for k, image in enumerate(card.images):
        left = MARGIN + k * (SIDE + GAP)
        panel = _panel(figure, left, top, SIDE, SIDE)
        panel.imshow(image.pixels, aspect="auto")
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
        colour = MAIN if image.right is None else GOOD if image.right else BAD
        lines = [(f"true: {image.true}", "#222222"), (f"predicted: {image.predicted}", colour)]
        y = top + SIDE + 0.08
        for text, ink in lines:
            shown = wrapped(text, CAPTION, 2 if ink != colour else 3)
            figure.text(
                left / WIDTH, 1 - y / HEIGHT, shown, fontsize=7.5, color=ink, va="top", linespacing=1.1
            )
            y += 0.13 * (shown.count("\n") + 1)
    return figure


def _panel(figure: Any, left: float, top: float, wide: float, high: float) -> Any:
    """Return a panel at a place in inches, counted from the left and from the top."""
    return figure.add_axes((left / WIDTH, 1 - (top + high) / HEIGHT, wide / WIDTH, high / HEIGHT))


def _draw_texts(figure: Any, card: Card) -> None:
    def text(top: float, what: str, left: float = MARGIN, **settings: Any) -> None:
        figure.text(left / WIDTH, 1 - top / HEIGHT, what, va="top", **settings)

    name = escape_text(card.name, 34)
    text(0.32, name, fontsize=22 if len(name) <= 18 else 22 * 18 / len(name), fontweight="bold")
    top = 0.78
    for line in card.about:
        shown = wrapped(line, 42, 2)
        text(top, shown, fontsize=10, color="#5f6368", linespacing=1.2)
        top += 0.19 * (shown.count("\n") + 1) + 0.03
    text(1.62, card.score, fontsize=38, color=MAIN, fontweight="bold")
    shown = wrapped(card.score_title, 44, 1)
    text(2.3, shown, fontsize=10)
    text(2.5, card.spread, fontsize=10, color="#5f6368")
    for k, (part, score) in enumerate(card.board):
        left = MARGIN + 1.6 * k
        text(2.82, score, left, fontsize=17, color=ACCENT, fontweight="bold")
        text(3.13, f"{part} leaderboard", left, fontsize=8.5, color="#5f6368")


def _draw_curves(panel: Any, card: Card) -> None:
    from matplotlib.ticker import MaxNLocator

    for epochs, values in card.curves:
        panel.plot(epochs, values, color=MAIN, alpha=0.75, linewidth=1.5, marker="o", markersize=2.5)
    n = len(card.curves)
    panel.set_title(f"{escape_text(card.curve_title)}, {n} fold{'s' * (n > 1)}", fontsize=10)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.grid()


def _draw_classes(panel: Any, card: Card) -> None:
    """Draw a bar per label, the best on top, with a gap where labels are left out."""
    n, gap = len(card.classes), 0.9 if card.n_left_out else 0.0
    half = n // 2
    places = [n - 1 - k - (gap if k >= half else 0) for k in range(n)] if gap else list(range(n))[::-1]
    values = [value for _, value in card.classes]
    panel.barh(places, values, color=[MAIN if k < half or not gap else ACCENT for k in range(n)], height=0.7)
    for place, value in zip(places, values):
        panel.text(max(value, 0), place, f" {value:.3f}", va="center", fontsize=8)
    panel.set_yticks(places, [wrapped(name, 22, 1) for name, _ in card.classes])
    panel.tick_params(length=0)
    panel.set_xticks([])
    panel.spines[:].set_visible(False)
    title = f"{escape_text(card.class_title, 30)}" + (", best and worst" if gap else "")
    panel.set_title(title, fontsize=10, x=1, ha="right")
    if gap:
        panel.text(
            0, places[half - 1] - 0.95, f"{card.n_left_out:,} more", fontsize=8, color=MUTED, va="center"
        )


def _draw_points(panel: Any, card: Card) -> None:
    low, high = card.points.min(), card.points.max()
    panel.scatter(*card.points.T, s=6, alpha=0.35, linewidths=0, color=MAIN)
    panel.plot([low, high], [low, high], color=ACCENT, linewidth=1)
    panel.set_title("predicted against true numbers", fontsize=10)
    panel.grid()
