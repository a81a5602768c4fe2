"use strict";
// Tabs, the layer picker, and drawing again when the theme changes. No library but plotly.

const DATA = JSON.parse(document.getElementById("data").textContent);
const CHOSEN = DATA.map((panel) => panel.first);

function drawPanel(index) {
  const panel = DATA[index], root = document.getElementById(panel.key);
  const layer = panel.layers[CHOSEN[index]];
  const figures = { ...panel.plots, ...layer.plots };
  for (const element of root.querySelectorAll("[data-plot]")) {
    const figure = figures[element.dataset.plot];
    if (figure) drawFigure(element, figure);
  }
}

function showLayer(index, which) {
  CHOSEN[index] = which;
  const root = document.getElementById(DATA[index].key), layer = DATA[index].layers[which];
  for (const element of root.querySelectorAll("[data-text]")) {
    element.textContent = layer[element.dataset.text] ?? "This layer was not recorded.";
  }
  const rasters = root.querySelector("[data-rasters]");
  if (rasters) rasters.hidden = !layer.raster;
  root.querySelector("[data-quantiles]").replaceChildren(...layer.quantiles.map(([level, ...rates]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.textContent = level + " %";
    row.append(head, ...rates.map((rate) => {
      const cell = document.createElement("td");
      cell.className = "n";
      cell.textContent = rate.toFixed(4);
      return cell;
    }));
    return row;
  }));
  drawPanel(index);
}

function openTab(tabs, index) {
  tabs.forEach((tab, i) => {
    tab.setAttribute("aria-selected", String(i === index));
    tab.tabIndex = i === index ? 0 : -1;
    document.getElementById(DATA[i].key).hidden = i !== index;
  });
  drawPanel(index);
}

function visible() {
  return DATA.map((_, i) => i).filter((i) => !document.getElementById(DATA[i].key).hidden);
}

function start() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => openTab(tabs, i));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: tabs.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = (to + tabs.length) % tabs.length;
      openTab(tabs, next);
      tabs[next].focus();
    });
  });
  document.querySelectorAll("[data-layer]").forEach((select) => {
    const index = DATA.findIndex((panel) => panel.key === select.closest(".panel").id);
    showLayer(index, Number(select.value)); // a browser that goes back keeps an older choice
    select.addEventListener("change", () => showLayer(index, Number(select.value)));
  });
  makeSortable();
  if (tabs.length) openTab(tabs, 0);
  else drawPanel(0);
  const redraw = () => visible().forEach(drawPanel);
  redrawOnChange(redraw, () => DATA.forEach((_, i) => drawPanel(i)));
}

start();
