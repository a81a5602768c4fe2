"use strict";
// Draws the plots of a page that has nothing to choose, and draws again when the theme changes. No library but plotly.

const DATA = JSON.parse(document.getElementById("data").textContent);

function draw() {
  for (const element of document.querySelectorAll("[data-plot]")) {
    const figure = DATA.plots[element.dataset.plot];
    if (figure) drawFigure(element, { data: figure.data, layout: { ...figure.layout } });
  }
}

draw();
makeSortable();
redrawOnChange(draw);
