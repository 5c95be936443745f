"use strict";
// A page of sentences, figures and tables; all of it is in the data.

const COLOURS = ["train", "test", "ridge", "pink", "sky", "amber", "ink"];
const TEXTS = { en: { notes: "Left out", offline: "This file works without a network." }, zh: { notes: "未显示", offline: "本文件不需要网络。" } };
const say = (both) => (Array.isArray(both) ? both[language() === "zh" ? 1 : 0] : both);
const numbers = (packed) => [...unpack(packed, Float64Array)].map((value) => (Number.isFinite(value) ? value : null));
const positive = (values, log) => (log ? values.map((value) => (value > 0 ? value : null)) : values);

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

const figures = data.figures.map((one, i) => {
  const figure = element("figure", undefined, document.querySelector(".figures"));
  const caption = element("figcaption", "", figure), place = element("div", undefined, figure);
  place.id = `figure-${i}`;
  place.setAttribute("role", "img");
  const lines = one.lines.map((line) => ({ ...line, y: positive(numbers(line.y), one.log_y), band: line.band && numbers(line.band) }));
  return { ...one, x: numbers(one.x), lines, caption: one.caption, place, heading: caption };
});

function series(line) {
  const name = typeof line.colour === "number" ? COLOURS[line.colour % COLOURS.length] : line.colour;
  const base = { label: say(line.name), stroke: colour(name), width: line.points ? 0 : 2, value: (_, v) => (v == null ? "–" : shown(v)) };
  if (line.dashed) base.dash = [6, 4];
  base.points = line.points ? { show: true, size: 7, fill: colour(name) } : {};
  return base;
}

function drawOne(figure) {
  const values = [figure.x, ...figure.lines.map((line) => line.y)], all = figure.lines.map(series), bands = [];
  for (const line of figure.lines.filter((each) => each.band)) {
    const edge = (sign) => positive(line.y.map((y, k) => (y == null || line.band[k] == null ? null : y + sign * line.band[k])), figure.log_y);
    values.push(edge(1), edge(-1));
    const faint = { ...series(line), label: "", width: 0, points: { show: false } };
    all.push({ ...faint, label: `+` }, { ...faint, label: `−` });
    bands.push({ series: [values.length - 2, values.length - 1], fill: `${colour(typeof line.colour === "number" ? COLOURS[line.colour % COLOURS.length] : line.colour)}33` });
  }
  const [least, most] = figure.at_least ?? [Infinity, -Infinity];
  const wide = (_, low, high) => [Math.min(low, least), Math.max(high, most)];
  const y = figure.log_y ? { distr: 3, range: limits(values.slice(1).flat()) } : figure.at_least ? { range: wide } : {};
  const x = { time: false, ...(figure.log_x ? { distr: 3 } : {}) };
  chart(figure.place.id, {
    scales: { x, y }, bands,
    axes: [axis(say(figure.x_label), figure.log_x ? log({}) : {}), axis(say(figure.y_label), figure.log_y ? log({ size: 64 }) : { size: 64 })],
    series: [{ label: say(figure.x_label), value: (_, v) => (v == null ? "–" : shown(v)) }, ...all],
    cursor: { drag: { x: false, y: false }, focus: { prox: 16 } }, focus: { alpha: 0.25 },
  }, values);
}

const draw = () => figures.forEach(drawOne);

function speak() {
  mark(language());
  document.title = say(data.title);
  document.querySelector("h1").textContent = say(data.title);
  for (const figure of figures) {
    figure.heading.textContent = say(figure.caption);
    figure.place.setAttribute("aria-label", `${say(figure.caption)}: ${figure.lines.map((line) => say(line.name)).join(", ")}`);
  }
  const notes = byId("notes"), tables = byId("tables"), words = TEXTS[language()];
  notes.textContent = "";
  for (const note of data.notes) element("p", say(note), notes);
  element("p", words.offline, notes);
  tables.textContent = "";
  for (const one of data.tables) {
    const scroll = element("div", undefined, tables);
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", say(one.caption));
    const table = element("table", undefined, scroll);
    element("caption", say(one.caption), table);
    const head = element("tr", undefined, element("thead", undefined, table));
    for (const name of one.head) element("th", say(name), head).scope = "col";
    const body = element("tbody", undefined, table);
    one.rows.forEach((cells, i) => {
      const line = element("tr", undefined, body);
      cells.forEach((cell) => element("td", cell, line));
      const shade = one.shades?.[i];
      if (shade > 0) line.style.background = `color-mix(in srgb, var(--train) ${Math.round(5 + 30 * shade)}%, transparent)`;
    });
  }
}

for (const line of data.lines) element("p", line, byId("lines"));
for (const doubt of data.doubts) element("li", doubt, byId("doubts"));
listen(speak, draw);
speak();
draw();
globalThis.page = { figures, charts };
