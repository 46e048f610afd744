"""What Deep Compression made of a net, as a picture file."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from compress import Account, Packed, stages

from ..plots import COLOURS

_MOST_NAMED = 40


def draw_report(packed: Packed, path: Path, title: str) -> None:
    """Write a PNG: the whole net's bytes after each stage; and layer by layer the part of the weights that is kept, and
    the bytes before and after. Raises OSError where the file cannot be written.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 3)
    _draw_stages(figure.add_subplot(grid[:, 0]), packed)
    accounts = packed.accounts
    _draw_kept(figure.add_subplot(grid[0, 1:]), accounts)
    _draw_bytes(figure.add_subplot(grid[1, 1:]), accounts)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _draw_stages(axes: Axes, packed: Packed) -> None:
    found = stages(packed)
    bars = axes.bar([stage.name for stage in found], [stage.size / 1024 for stage in found], color=COLOURS[0])
    axes.bar_label(bars, [f"{stage.size / 1024:,.0f}\n{found[0].size / stage.size:.1f}x" for stage in found])
    axes.set(ylabel="KiB", title="the whole net", ylim=(0, found[0].size / 1024 * 1.12))
    axes.tick_params("x", rotation=20)


def _draw_kept(axes: Axes, accounts: tuple[Account, ...]) -> None:
    axes.bar(range(len(accounts)), [100 * account.kept / account.weights for account in accounts], color=COLOURS[2])
    axes.set(ylabel="% of the weights kept", ylim=(0, 105), title="by layer, in the net's order")
    _name_layers(axes, accounts, shown=False)


def _draw_bytes(axes: Axes, accounts: tuple[Account, ...]) -> None:
    places = range(len(accounts))
    axes.bar(places, [account.dense_bytes / 1024 for account in accounts], color="#cccccc", label="float32")
    axes.bar(places, [account.coded_bytes / 1024 for account in accounts], color=COLOURS[1], label="in the file")
    axes.set(ylabel="KiB")
    axes.set_yscale("log")
    axes.legend(loc="upper right", fontsize="small")
    _name_layers(axes, accounts, shown=len(accounts) <= _MOST_NAMED)


def _name_layers(axes: Axes, accounts: tuple[Account, ...], *, shown: bool) -> None:
    if shown:
        axes.set_xticks(range(len(accounts)), [account.name for account in accounts], rotation=90, fontsize="x-small")
    else:
        axes.set_xticks([])
