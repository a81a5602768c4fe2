"use strict";
// Draws figures in the colours of the page: a colour "@name" becomes the CSS variable --name.

const FONT = getComputedStyle(document.body).fontFamily;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
}

function themed(value, key) {
  if (Array.isArray(value)) return value.map((item) => themed(item, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k)]));
  }
  const isColour = typeof value === "string" && /color$/i.test(key) && value[0] === "@";
  return isColour ? colour(value.slice(1)) : value;
}

function axis(own) {
  const { title, ...rest } = own || {};
  return {
    gridcolor: colour("grid"), linecolor: colour("rule"), zerolinecolor: colour("rule"), showline: true,
    tickfont: { size: 12, color: colour("muted") }, fixedrange: true, automargin: true, ticks: "",
    title: title ? { text: title.text, font: { size: 12, color: colour("muted") }, standoff: 8 } : undefined,
    ...rest,
  };
}

function layoutOf(figure) {
  const { xaxis, yaxis, ...rest } = figure.layout, height = rest.height || 300;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", height, dragmode: false, hovermode: "closest",
    font: { family: FONT, size: 12, color: colour("ink") }, margin: { l: 48, r: 16, t: 8, b: 40 },
    showlegend: true, legend: { orientation: "h", traceorder: "normal", x: 0, xanchor: "left", y: 1 + 5 / (height - 50), yanchor: "bottom", font: { size: 12 }, itemclick: false, itemdoubleclick: false },
    hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("rule"), font: { color: colour("ink"), family: FONT }, namelength: -1 },
    xaxis: axis(xaxis), yaxis: axis(yaxis), ...rest,
  };
}

function drawFigure(element, figure) {
  const layout = layoutOf(figure);
  if (element.clientWidth < 520) layout.height += 19 * Math.max(0, figure.data.length - 2); // the legend breaks into lines
  return Plotly.react(element, themed(figure.data, ""), layout, { displayModeBar: false, responsive: true });
}

// Draws again when the colour scheme changes, for paper, and after it; `forPaper` draws what only paper shows.
function redrawOnChange(draw, forPaper = draw) {
  const printing = (on) => document.documentElement.classList.toggle("printing", on);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  addEventListener("beforeprint", () => (printing(true), forPaper()));
  addEventListener("afterprint", () => (printing(false), draw()));
}
