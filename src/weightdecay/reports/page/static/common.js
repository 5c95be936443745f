"use strict";
// What all pages share: numbers, axes, languages. Texts reach the document as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function unpack(text, Kind) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const row = (values, count, i) => { const width = values.length / count; return values.subarray(i * width, (i + 1) * width); };
const last = (values) => values[values.length - 1];
const shown = (value) => (value === 0 ? "0" : Math.abs(value) >= 0.001 && Math.abs(value) < 10000 ? String(Number(value.toPrecision(4))) : value.toExponential(2));

const charts = {};
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function axis(label, more = {}, grid = true) {
  const only = more.filter ? { filter: more.filter } : {};
  return { label, stroke: colour("ink"), labelSize: 22, ...more, grid: { show: grid, stroke: colour("line"), width: 1, ...only }, ticks: { stroke: colour("line"), ...only } };
}
const power = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
const decades = (u, values) => { // 2 and 5 besides, where there are few powers of ten
  const few = values.filter((value) => value != null && power(value)).length < 3;
  const kept = (value) => power(value) || (few && [2, 5].some((times) => power(value / times)));
  return values.map((value) => (value != null && kept(value) ? value : null));
};
const log10 = (more) => ({ values: powers, filter: decades, ...more });
const short = (value) => String(Number(value.toPrecision(2)));
const powers = (_, values) => values.map((value) => (value == null ? "" : value >= 0.01 && value <= 1000 ? String(Number(value.toPrecision(3))) : value.toExponential(0)));

function chart(id, options, values) {
  charts[id]?.destroy();
  const place = byId(id);
  place.textContent = "";
  const size = { width: Math.max(240, place.clientWidth), height: 280 };
  charts[id] = new uPlot({ ...size, cursor: { drag: { x: false, y: false } }, ...options }, values, place);
}

function limits(values) {
  let low = Infinity, high = 0;
  for (const value of values) if (value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
  return high ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high) + 1e-9)] : [0.1, 1];
}

function near(values) { // close around what is there
  let low = Infinity, high = 0;
  for (const value of values) if (value > 0) { low = Math.min(low, value); high = Math.max(high, value); }
  return high ? [low / (high / low) ** 0.05 / 1.02, high * (high / low) ** 0.05 * 1.02] : [0.1, 1];
}

// ---- language: in the address alone

const language = () => (/lang=zh/.test(location.hash) ? "zh" : "en");
function mark(lang) {
  document.documentElement.lang = lang;
  for (const button of document.querySelectorAll("[data-lang]")) button.setAttribute("aria-pressed", String(button.dataset.lang === lang));
}
function listen(speak, draw) {
  for (const button of document.querySelectorAll("[data-lang]"))
    button.addEventListener("click", () => { location.hash = `lang=${button.dataset.lang}`; });
  addEventListener("hashchange", () => { speak(); draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let waiting;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(draw, 100); });
}
