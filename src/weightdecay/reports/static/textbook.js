"use strict";
// The page of a textbook run. Every position of the slider is a training that was done: nothing is computed
// here but what is drawn.

const TEXTS = {
  en: {
    title: data.title,
    intro: "Move the slider. Before you do, guess: what will a stronger decay do to the training loss, what to the test loss, and from where on does it help or harm?",
    lam: "λ, the strength", start: "start", normal: "N(0, 1)", zero: "zero", program: "program",
    scratch: "from scratch", concise: "torch.optim, as printed", matched: "torch.optim, matched (2λ, lr/2)",
    curves: "Loss over the epochs, ½ mean squared error", against: "Test loss at the end against λ", bars: "The first weights at the end",
    sorted: "sort them by size", train: "train", test: "test", theory: "theory", ridge: "trained to the end", epoch: "epoch", weight: "weight", here: "this λ", value: "value", loss: "½ mean squared error",
    trainLoss: "train loss", testLoss: "test loss", norm: "‖w‖", theoryLoss: "test loss by theory", ridgeLoss: "of exact ridge", halfLife: "half-life in epochs",
    why: "What there is to see",
    why1: "With fewer examples than inputs, training reaches only the directions that the examples span. In all others the weights stay as they started: without decay a random start is never forgotten, and the test loss shows it.",
    why2: "Decay multiplies every weight by 1 − lr·λ at each step, in every direction. What the examples do not hold up is halved once in each half-life. Start at zero, and there is nothing to forget: then only a very strong λ changes much, and it harms.",
    why3: "torch's MSELoss has no ½. With the same λ and lr the program as printed takes steps of twice the loss, so that its λ counts half; with 2λ and lr/2 it is the program from scratch, step by step.",
    none: "no decay", infinite: "∞",
    hintNone: "λ = 0: the training loss vanishes; the test loss stays where the start has put it.",
    hintBetter: (x) => `The test loss is ${x} times smaller than without decay.`,
    hintWorse: (x) => `The test loss is ${x} times larger than without decay: too much, or nothing to forget.`,
    hintSame: "The test loss is about what it is without decay.",
    facts: (f) => `${f.synthetic ? "Synthetic data" : `Target: ${f.target}`}; ${f.n_train} training examples, ${f.inputs} inputs; lr ${f.lr}, batches of ${f.batch_size}, ${f.epochs} epochs, seed ${f.seed}.`,
    thinned: (f) => `The curves have ${f.looks} looks of each training, up to epoch ${f.epochs}; the bars show the first weights only.`,
    footer: "Every position of the slider is a training that was done; nothing is interpolated. Theory: the test loss of the weights that as many steps are expected to reach. This file works without a network.",
  },
  zh: {
    title: data.facts.synthetic ? "权重衰减：教科书的实验" : `权重衰减：表中的 ${data.facts.target}`,
    intro: "移动滑块。动手之前先猜一猜：更强的衰减会让训练损失怎样，让测试损失怎样，从哪里开始有益，又从哪里开始有害？",
    lam: "强度 λ", start: "起点", normal: "N(0, 1)", zero: "零", program: "程序",
    scratch: "从零写起", concise: "torch.optim，照书上写", matched: "torch.optim，对应（2λ，lr/2）",
    curves: "各轮的损失，½ 均方误差", against: "结束时的测试损失与 λ", bars: "结束时的前几个权重",
    sorted: "按大小排序", train: "训练", test: "测试", theory: "理论", ridge: "训练到底", epoch: "轮", weight: "权重", here: "当前的 λ", value: "值", loss: "½ 均方误差",
    trainLoss: "训练损失", testLoss: "测试损失", norm: "‖w‖", theoryLoss: "理论测试损失", ridgeLoss: "精确岭回归", halfLife: "半衰期（轮）",
    why: "可以看到什么",
    why1: "样本比输入少时，训练只能触及样本张成的方向。在其余方向上，权重停在起点：没有衰减，随机的起点永远不会被忘掉，测试损失说明了这一点。",
    why2: "衰减在每一步、每个方向上把权重乘以 1 − lr·λ。没有样本支撑的部分，每过一个半衰期减半。从零开始就没有什么可忘：这时只有很强的 λ 才有明显作用，而且是有害的。",
    why3: "torch 的 MSELoss 没有 ½。λ 与 lr 相同时，照书上写的程序每一步用的是两倍的损失，所以它的 λ 只算一半；换成 2λ 和 lr/2，它与从零写起的程序步步相同。",
    none: "无衰减", infinite: "∞",
    hintNone: "λ = 0：训练损失趋于零；测试损失停在起点决定的地方。",
    hintBetter: (x) => `测试损失是无衰减时的 ${x} 分之一。`,
    hintWorse: (x) => `测试损失是无衰减时的 ${x} 倍：衰减过强，或者没有什么可忘。`,
    hintSame: "测试损失与无衰减时差不多。",
    facts: (f) => `${f.synthetic ? "合成数据" : `目标：${f.target}`}；${f.n_train} 个训练样本，${f.inputs} 个输入；lr ${f.lr}，批量 ${f.batch_size}，${f.epochs} 轮，种子 ${f.seed}。`,
    thinned: (f) => `曲线显示每次训练的 ${f.looks} 次评估，直到第 ${f.epochs} 轮；柱形只显示前几个权重。`,
    footer: "滑块的每个位置都是一次真实的训练，没有插值。理论：走同样多步后权重期望值的测试损失。本文件不需要网络。",
  },
};

// ---- numbers

const sets = data.sets.map((one) => {
  const found = { version: one.version, init: one.init, count: one.count, lam: unpack(one.lam, Float64Array) };
  for (const name of ["half_life", "theory", "ridge", "w_norm", "train_loss", "test_loss", "weights"])
    found[name] = unpack(one[name], Float32Array);
  return found;
});
// ---- state

const state = { lang: language(), version: "scratch", init: data.start.init, place: 0 };
const chosen = () => sets.find((one) => one.version === state.version && one.init === state.init && one.count);
const text = () => TEXTS[state.lang];

function nearest(lambdas, lam) {
  let best = 0;
  lambdas.forEach((value, i) => { if (Math.abs(value - lam) < Math.abs(lambdas[best] - lam)) best = i; });
  return best;
}

// ---- figures

function curvesOf(set, i) { return [data.epoch, [...row(set.train_loss, set.count, i)], [...row(set.test_loss, set.count, i)]]; }

function againstOf(set, i) {
  const kept = [...set.lam.keys()].filter((k) => set.lam[k] > 0); // a log axis has no 0
  const ends = kept.map((k) => last(row(set.test_loss, set.count, k)));
  const mark = kept.map((k, n) => (k === i ? ends[n] : null));
  return [kept.map((k) => set.lam[k]), ends, kept.map((k) => set.theory[k]), kept.map((k) => set.ridge[k]), mark];
}

function barsOf(set, i) {
  const values = [...row(set.weights, set.count, i)];
  if (byId("sorted").checked) values.sort((a, b) => b - a);
  return [values.map((_, k) => k + 1), values];
}

function draw() {
  const set = chosen(), words = text(), range = limits([...set.train_loss, ...set.test_loss]);
  const line = (label, name, more) => ({ label, stroke: colour(name), width: 2, value: (_, v) => (v == null ? "–" : shown(v)), ...more });
  chart("curves", {
    scales: { x: { time: false }, y: { distr: 3, range } },
    axes: [axis(words.epoch), axis(words.loss, log10({ size: 64 }))],
    series: [{ label: words.epoch }, line(words.train, "train"), line(words.test, "test", { dash: [6, 4] })],
  }, curvesOf(set, state.place));
  const against = againstOf(set, state.place);
  chart("against", {
    scales: { x: { time: false, distr: 3 }, y: { distr: 3, range: limits([...against[1], ...against[2], ...against[3]]) } },
    axes: [axis("λ", log10({})), axis(words.loss, log10({ size: 64 }))],
    series: [{ label: "λ", value: (_, v) => (v == null ? "–" : shown(v)) }, line(words.test, "test"), line(words.theory, "theory", { dash: [6, 4], width: 1 }),
      line(words.ridge, "ridge", { dash: [2, 3] }), line(words.here, "train", { points: { show: true, size: 12, fill: colour("train") } })],
  }, against);
  const largest = Math.max(...set.weights.map(Math.abs), 1e-6);
  chart("bars", {
    scales: { x: { time: false, range: (u, low, high) => [low - 1, high + 1] }, y: { range: [-largest, largest] } },
    axes: [axis(words.weight), axis(words.value, { size: 56 })],
    series: [{ label: words.weight }, line(words.value, "train", { fill: colour("train"), width: 0, paths: uPlot.paths.bars({ size: [0.7, 20] }), points: { show: false } })],
  }, barsOf(set, state.place));
  tell();
}

function move() { // the slider: new numbers in the same figures
  const set = chosen();
  charts.curves.setData(curvesOf(set, state.place));
  charts.against.setData(againstOf(set, state.place));
  charts.bars.setData(barsOf(set, state.place));
  tell();
}

// ---- words

function hint(set, i, words) {
  if (set.lam[i] === 0) return words.hintNone;
  const without = set.lam.indexOf(0);
  if (without < 0) return "";
  const ratio = last(row(set.test_loss, set.count, without)) / last(row(set.test_loss, set.count, i));
  const round = (x) => String(Number(x.toPrecision(2)));
  return ratio > 1.05 ? words.hintBetter(round(ratio)) : ratio < 0.95 ? words.hintWorse(round(1 / ratio)) : words.hintSame;
}

function tell() {
  const set = chosen(), i = state.place, words = text(), lam = set.lam[i];
  const said = lam === 0 ? `λ = 0 (${words.none})` : `λ = ${shown(lam)}`;
  byId("now").textContent = said;
  byId("lam").setAttribute("aria-valuetext", said);
  byId("hint").textContent = hint(set, i, words);
  const life = set.half_life[i];
  const numbers = [
    [words.trainLoss, shown(last(row(set.train_loss, set.count, i)))], [words.testLoss, shown(last(row(set.test_loss, set.count, i)))],
    [words.norm, shown(set.w_norm[i])], [words.halfLife, Number.isFinite(life) ? shown(life) : words.infinite],
    [words.theoryLoss, shown(set.theory[i])], [words.ridgeLoss, shown(set.ridge[i])],
  ];
  const list = byId("numbers");
  list.textContent = "";
  for (const [name, value] of numbers) {
    const pair = document.createElement("div"), term = document.createElement("dt"), what = document.createElement("dd");
    term.textContent = name; what.textContent = value; pair.append(term, what); list.append(pair);
  }
  for (const id of ["curves", "against", "bars"]) byId(id).setAttribute("aria-label", `${words[id]}; ${said}; ${words.testLoss} ${numbers[1][1]}`);
}

function speak() {
  state.lang = language();
  mark(state.lang);
  const words = text();
  document.title = words.title;
  for (const place of document.querySelectorAll("[data-text]")) place.textContent = words[place.dataset.text];
  byId("facts").textContent = words.facts(data.facts);
  byId("thinned").textContent = words.thinned(data.facts);
}

// ---- begin

function choose(lam) {
  if (!chosen()) Object.assign(state, (({ version, init }) => ({ version, init }))(sets.find((one) => one.count)));
  const set = chosen();
  byId("lam").max = set.count - 1;
  state.place = nearest(set.lam, lam);
  byId("lam").value = state.place;
  for (const name of ["init", "version"])
    for (const button of document.querySelectorAll(`input[name=${name}]`)) {
      button.checked = button.value === state[name];
      button.disabled = !sets.some((one) => one[name] === button.value && one.count);
    }
}

byId("lam").addEventListener("input", (event) => { state.place = Number(event.target.value); move(); });
byId("sorted").addEventListener("change", move);
byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("controls").addEventListener("change", (event) => {
  if (event.target.type !== "radio") return;
  const lam = chosen().lam[state.place];
  state[event.target.name] = event.target.value;
  choose(lam);
  draw();
});
listen(speak, draw);

choose(data.start.lam);
speak();
draw();
globalThis.page = { state, sets, charts };
