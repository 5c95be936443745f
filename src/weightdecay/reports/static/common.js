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
// Where a log axis has lines and labels: powers of ten, as many as there is room for; 2 and 5 besides, where there
// are few of them; equal steps within one decade.
function ticks(low, high, room) {
  const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9), inside = (value) => value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9);
  const step = Math.max(1, Math.ceil((to - from + 1) / room)), exponents = Array.from({ length: Math.max(0, to - from + 3) }, (_, i) => from - 1 + i);
  if (to - from >= 2) return exponents.filter((e) => e >= from && e <= to && e % step === 0).map((e) => Number(`1e${e}`));
  const few = exponents.flatMap((e) => [1, 2, 5].map((times) => Number(`${times}e${e}`))).filter(inside);
  if (few.length >= 3) return few;
  const rough = (high - low) / 4, unit = 10 ** Math.floor(Math.log10(rough)), each = unit * [1, 2, 5, 10].find((times) => times * unit >= rough * 0.99);
  return Array.from({ length: 9 }, (_, i) => Number(((Math.ceil(low / each) + i) * each).toPrecision(12))).filter(inside);
}
const log10 = (more) => ({
  values: powers, filter: (_, found) => found,
  splits: (u, i, low, high) => ticks(low, high, Math.max(2, Math.floor(u.axes[i].side % 2 ? (u.height - 90) / 28 : (u.width - 90) / 52))),
  ...more,
});
const short = (value) => String(Number(value.toPrecision(2)));
const powers = (_, values) => values.map((value) => (value == null ? "" : value === 0 ? "0" : value >= 0.01 && value < 1e5 ? String(Number(value.toPrecision(3))) : Number(value.toPrecision(3)).toExponential().replace("e+", "e")));

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

const language = () => {
  const asked = /lang=(en|zh)/.exec(location.hash);
  return asked ? asked[1] : /^zh/.test(navigator.language) ? "zh" : "en";
};
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
