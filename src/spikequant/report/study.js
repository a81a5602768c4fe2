"use strict";
// The front for any two figures, copying a plan, and drawing again when the theme changes. No library but plotly.

const DATA = JSON.parse(document.getElementById("data").textContent);
const PICK = { x: document.getElementById("pick-x"), y: document.getElementById("pick-y") };

function axisOf(name) {
  return DATA.axes.find((axis) => axis.name === name);
}

function frontFigure() {
  const x = axisOf(PICK.x.value), y = axisOf(PICK.y.value);
  const trace = (group) => {
    const [color, symbol, size, opacity] = group.look;
    return {
      type: "scatter", mode: "markers", name: group.name, x: group.values[x.name], y: group.values[y.name], opacity,
      marker: { color, symbol, size, line: { color, width: 1.2 } }, text: group.texts, customdata: group.trials,
      hovertemplate: "%{text}<br>" + x.label + " %{x:.4g}<br>" + y.label + " %{y:.4g}<extra></extra>",
    };
  };
  const scale = (axis) => ({ title: { text: axis.label }, type: axis.log && positive(axis) ? "log" : "linear" });
  const line = { type: "line", line: { color: "@muted", width: 1, dash: "dot" } };
  const shapes = [];
  if (y.name === "accuracy") shapes.push({ ...line, xref: "paper", x0: 0, x1: 1, y0: DATA.target, y1: DATA.target });
  if (x.name === "accuracy") shapes.push({ ...line, yref: "paper", y0: 0, y1: 1, x0: DATA.target, x1: DATA.target });
  return { data: DATA.groups.map(trace), layout: { height: 480, xaxis: scale(x), yaxis: scale(y), shapes: themed(shapes, "") } };
}

function positive(axis) {
  return DATA.groups.every((group) => group.values[axis.name].every((value) => value > 0));
}

function say(text) {
  document.querySelector("[data-copied]").textContent = text;
}

async function copyPlan(trial) {
  const text = DATA.plans[trial], name = text.split("\n")[0].slice(2);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text }), focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    if (!done) return say("The browser does not let this page copy; the plan stands below.");
  }
  return say("Copied the plan of " + name + ".");
}

function showPlan(trial) {
  const code = document.querySelector("[data-plan] code");
  if (code) code.textContent = DATA.plans[trial];
}

function draw() {
  for (const element of document.querySelectorAll("[data-plot]")) {
    const figure = element.dataset.plot === "front" ? frontFigure() : DATA.plots[element.dataset.plot];
    if (!figure) continue;
    const layout = { ...figure.layout };
    if (layout.annotations) layout.annotations = themed(layout.annotations, "");
    drawFigure(element, { data: figure.data, layout });
  }
}

function start() {
  for (const select of [PICK.x, PICK.y]) select.addEventListener("change", draw);
  draw();
  document.querySelector("[data-plot=front]").on("plotly_click", ({ points: [point] }) => {
    if (point.customdata === undefined) return;
    copyPlan(point.customdata);
    const plan = document.getElementById("pick-plan");
    if (plan && [...plan.options].some((option) => option.value === String(point.customdata))) plan.value = point.customdata;
    showPlan(point.customdata);
  });
  const plan = document.getElementById("pick-plan");
  if (plan) {
    plan.addEventListener("change", () => showPlan(plan.value));
    document.querySelector("[data-copy]").addEventListener("click", () => copyPlan(plan.value));
    showPlan(plan.value);
  }
  makeSortable();
  redrawOnChange(draw);
}

start();
