"use strict";
// A page of sentences, figures, tables and trees; all of it is in the data.

const TEXTS = {
  en: { notes: "Left out", offline: "This file works without a network.", all: "all", none: "none", show: "Show", what: "measure", point: "Point at a line: its name stands here.", doubts: "note: " },
  zh: { notes: "未显示", offline: "本文件不需要网络。", all: "全选", none: "全不选", show: "显示", what: "量", point: "把指针放在一条线上，这里会显示它的名字。", doubts: "注意：" },
};
const words = () => TEXTS[language()];
const say = (both) => (Array.isArray(both) ? both[language() === "zh" ? 1 : 0] : both);
const numbers = (packed) => [...unpack(packed, Float64Array)].map((value) => (Number.isFinite(value) ? value : null));
const positive = (values, log) => (log ? values.map((value) => (value > 0 ? value : null)) : values);
const many = 8; // with more lines a figure has no legend: the name of a line appears when it is pointed at

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

const figures = data.figures.map((one, i) => {
  const figure = element("figure", undefined, document.querySelector(".figures"));
  const heading = element("figcaption", "", figure), controls = element("div", undefined, figure), place = element("div", undefined, figure);
  place.id = `figure-${i}`;
  place.setAttribute("role", "img");
  controls.className = "choices";
  const lines = one.lines.map((line) => ({ ...line, y: numbers(line.y), band: line.band && numbers(line.band) }));
  const top = one.top && { label: one.top.label, values: [...unpack(one.top.values, Float64Array)] };
  const tip = element("p", "", figure);
  tip.className = "tip";
  return { ...one, x: numbers(one.x), lines, top, place, heading, controls, tip, group: 0 };
});

// ---- figures

const inGroup = (figure) => figure.lines.filter((line) => line.group === null || line.group === figure.group);
const logY = (figure) => (figure.groups.length ? figure.groups[figure.group].log_y : figure.log_y);

function series(line) {
  const name = line.colour;
  const base = { label: say(line.name), stroke: colour(name), width: line.points ? 0 : 2, value: (_, v) => (v == null ? "–" : shown(v)) };
  if (line.dashed) base.dash = [6, 4];
  if (line.dashed) base.points = { show: false };
  else base.points = line.points ? { show: true, size: line.colour === "soft" ? 4 : 7, fill: colour(name) } : {};
  return base;
}

const range = (line, log, sign) => positive(line.y.map((y, k) => (y == null || line.band[k] == null ? null : y + sign * line.band[k])), log);

function drawBands(u, lines, log) {
  for (const line of lines.filter((each) => each.band && !each.bars)) {
    const low = range(line, log, -1), high = range(line, log, 1), at = (k) => u.valToPos(u.data[0][k], "x", true);
    const known = u.data[0].map((_, k) => k).filter((k) => high[k] != null && low[k] != null);
    u.ctx.save();
    u.ctx.beginPath();
    u.ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    u.ctx.clip();
    u.ctx.fillStyle = `${colour(line.colour)}33`;
    u.ctx.beginPath();
    for (const k of known) u.ctx.lineTo(at(k), u.valToPos(high[k], "y", true));
    for (const k of known.reverse()) u.ctx.lineTo(at(k), u.valToPos(low[k], "y", true));
    u.ctx.fill();
    u.ctx.restore();
  }
}

function drawBars(u, lines, log) {
  for (const line of lines.filter((each) => each.bars && each.band)) {
    const low = range(line, log, -1), high = range(line, log, 1);
    u.ctx.save();
    u.ctx.strokeStyle = colour(line.colour);
    u.ctx.lineWidth = devicePixelRatio;
    u.ctx.beginPath();
    u.data[0].forEach((x, k) => {
      if (high[k] == null) return;
      const at = Math.round(u.valToPos(x, "x", true)), end = low[k] == null ? u.bbox.top + u.bbox.height : u.valToPos(low[k], "y", true);
      u.ctx.moveTo(at, u.valToPos(high[k], "y", true));
      u.ctx.lineTo(at, end);
    });
    u.ctx.stroke();
    u.ctx.restore();
  }
}

// On a log axis that begins at 0 the smallest number above it; from there on the axis is (nearly) logarithmic.
const zero = (figure) => (figure.log_x && figure.x[0] === 0 ? figure.x.find((value) => value > 0) : 0);

function zeroAxis(u, i, low, high) { // 0, and powers of ten that have room beside it
  const [wide, least] = [u.width - 90, u.scales.x.asinh], far = (value) => (Math.asinh(value / least) / Math.asinh(high / least)) * wide;
  return [0, ...ticks(least, high, Math.max(2, Math.floor(wide / 52))).filter((value) => far(value) > 40)];
}

function topAxis(figure) { // labels stand at positions that have a value: nothing is interpolated
  const known = figure.x.map((x, k) => k).filter((k) => Number.isFinite(figure.top.values[k]));
  const place = (k) => (zero(figure) ? Math.asinh(figure.x[k] / zero(figure)) : figure.log_x ? Math.log(figure.x[k]) : figure.x[k]), ends = [place(known[0]), place(known.at(-1))];
  const picked = [...new Set([0, 1, 2, 3, 4].map((n) => {
    const wanted = ends[0] + (n / 4) * (ends[1] - ends[0]);
    return known.reduce((a, b) => (Math.abs(place(b) - wanted) < Math.abs(place(a) - wanted) ? b : a));
  }))];
  return axis(say(figure.top.label), {
    scale: "x", side: 0, size: 34, splits: () => picked.map((k) => figure.x[k]), filter: (_, found) => found,
    values: () => picked.map((k) => short(figure.top.values[k])),
  }, false);
}

function drawOne(figure) {
  const log = logY(figure), lines = inGroup(figure).filter((line) => line.shown);
  const values = [figure.x, ...lines.map((line) => positive(line.y, log))], all = lines.map(series);
  const bars = lines.filter((line) => line.band).flatMap((line) => [...range(line, log, 1), ...range(line, log, -1)]);
  const [least, most] = figure.at_least ?? [Infinity, -Infinity];
  const wide = (_, low, high) => {
    for (const value of bars) if (value != null) { low = Math.min(low, value); high = Math.max(high, value); }
    const room = 0.06 * (high - low || Math.abs(high) || 1), [down, up] = figure.at_least ? [low, high] : [low - room, high + room];
    return [Math.min(down, least), Math.max(up, most)];
  };
  const y = log ? { distr: 3, range: near([...values.slice(1).flat(), ...bars]) } : { range: wide };
  const first = zero(figure), logarithmic = first ? { distr: 4, asinh: first, range: (_, low, high) => [0, high * 1.1] } : { distr: 3, range: (_, low, high) => [low / 1.1, high * 1.1] };
  const x = { time: false, ...(figure.log_x ? logarithmic : {}) };
  const axes = [axis(say(figure.x_label), figure.log_x ? log10(first ? { splits: zeroAxis } : {}) : {}), axis(say(figure.groups[figure.group]?.label ?? figure.y_label), log ? log10({ size: 64 }) : { size: 64 })];
  if (figure.top) axes.push(topAxis(figure));
  const focused = (_, i) => { figure.tip.textContent = i && all[i - 1] ? all[i - 1].label : lines.length > many ? words().point : ""; };
  chart(figure.place.id, {
    scales: { x, y }, axes,
    series: [{ label: say(figure.x_label), value: (_, v) => (v == null ? "–" : shown(v)) }, ...all],
    legend: { show: lines.length <= many }, cursor: { drag: { x: false, y: false }, focus: { prox: 16 } }, focus: { alpha: 0.25 },
    hooks: { setSeries: [focused], drawAxes: [(u) => drawBands(u, lines, log)], draw: [(u) => drawBars(u, lines, log)] },
  }, values);
  focused(null, null);
  figure.place.setAttribute("aria-label", `${say(figure.caption)}: ${lines.map((line) => say(line.name)).join(", ")}`);
}

// ---- what a figure lets its reader choose

function controls(figure) {
  figure.controls.textContent = "";
  if (figure.groups.length > 1) {
    const label = element("label", `${words().what} `, figure.controls), list = element("select", undefined, label);
    figure.groups.forEach((group, i) => { element("option", say(group.label), list).value = i; });
    list.value = figure.group;
    list.addEventListener("change", () => { figure.group = Number(list.value); controls(figure); drawOne(figure); });
  }
  if (!figure.choose) return;
  const set = element("fieldset", undefined, figure.controls);
  element("legend", `${words().show}: ${say(data.unit ?? "")}`.replace(/: $/, ""), set);
  const buttons = [];
  for (const line of inGroup(figure)) {
    const label = element("label", undefined, set), box = element("input", undefined, label);
    box.type = "checkbox";
    box.checked = line.shown;
    label.append(` ${say(line.name)}`);
    box.addEventListener("change", () => { line.shown = box.checked; drawOne(figure); });
    buttons.push([line, box]);
  }
  for (const [name, on] of [["all", true], ["none", false]]) {
    const button = element("button", words()[name], set);
    button.type = "button";
    button.addEventListener("click", () => {
      for (const [line, box] of buttons) line.shown = box.checked = on;
      drawOne(figure);
    });
  }
}

const draw = () => figures.forEach(drawOne);

// ---- tables and trees

const shaded = (share) => `color-mix(in srgb, var(--train) ${Math.round(3 + 37 * share)}%, transparent)`;

function tableOf(one, parent) {
  const scroll = element("div", undefined, parent);
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
    const line = element("tr", undefined, body), shade = one.shades?.[i];
    const made = cells.map((cell) => element("td", say(cell), line));
    if (typeof shade === "number" && shade > 0) line.style.background = shaded(shade);
    if (Array.isArray(shade)) shade.forEach((share, k) => { if (share != null) made[k].style.background = shaded(share); });
  });
}

function branch(node, parent, depth) {
  const item = element("li", undefined, parent), inner = node.children.length ? element("details", undefined, item) : item;
  if (node.children.length) inner.open = depth < 2;
  const line = element(node.children.length ? "summary" : "span", undefined, inner), chip = element("span", undefined, line);
  chip.className = "chip";
  if (node.shade > 0) chip.style.background = `color-mix(in srgb, var(--train) ${Math.round(15 + 85 * node.shade)}%, var(--paper))`;
  element("b", node.name, line);
  line.append(` ${say(node.said)}`);
  if (!node.children.length) return;
  const below = element("ul", undefined, inner);
  for (const child of node.children) branch(child, below, depth + 1);
}

function speak() {
  mark(language());
  document.title = say(data.title);
  document.querySelector("h1").textContent = say(data.title);
  const lines = byId("lines"), doubts = byId("doubts"), notes = byId("notes"), tree = byId("tree");
  lines.textContent = doubts.textContent = notes.textContent = tree.textContent = byId("tables").textContent = byId("rest").textContent = "";
  for (const line of data.lines) element("p", say(line), lines);
  for (const doubt of data.doubts) element("li", `${words().doubts}${say(doubt)}`, doubts);
  if (!data.doubts.length) doubts.hidden = true;
  for (const figure of figures) { figure.heading.textContent = say(figure.caption); controls(figure); }
  data.tables.forEach((one, i) => tableOf(one, byId(figures.length && i ? "rest" : "tables")));
  if (data.tree) {
    element("h2", say(data.tree.caption), tree);
    const list = element("ul", undefined, tree);
    for (const node of data.tree.nodes) branch(node, list, 0);
  }
  for (const note of data.notes) element("p", say(note), notes);
  element("p", words().offline, notes);
}

listen(speak, draw);
speak();
draw();
globalThis.page = { figures, charts };
