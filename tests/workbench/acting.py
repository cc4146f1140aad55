"""What a user of the workbench does."""

from __future__ import annotations

from plotly.callbacks import Points

TYPED = "Which city is in Spain? Choose one.\nA. Madrid\nB. Busan\nC. Oaxaca\nD. Tehran"


def click(view, site: str, layer: int, neuron: int) -> None:
    """What Plotly reports of a mouse click on a cell."""
    place = [panel.site.value for panel in view._heat.drawn.panels].index(site)
    panel = view._heat.drawn.panels[place]
    trace = view._heat.figure.data[place]
    x = float(panel.centres[neuron // panel.size])
    trace._dispatch_on_click(Points([[layer, neuron // panel.size]], [x], [layer], None, place), None)
