// Plots as SVG in the page's own colours. Each takes the width that it has and is drawn again when that changes.
"use strict";

const PALETTE = ["#3b8fd6", "#e0702f", "#2ba37c", "#c265a6", "#c79a17", "#8a7be0", "#4aa9bf", "#b8564d", "#7d9b3a", "#8c8c8c"];
const SHAPES = ["circle", "square", "diamond", "triangle"];

// draw(width) makes the plot's node, now and whenever the holder's width changes.
function plotted(draw) {
  const holder = el("div", { class: "plot" });
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.floor(holder.clientWidth);
    if (!now || now === width) return;
    width = now;
    holder.replaceChildren(draw(now));
  }).observe(holder);
  return holder;
}

const linear = (low, high, from, to) => (value) => from + ((value - low) / (high - low || 1)) * (to - from);
function logarithmic(low, high, from, to) {
  const inner = linear(Math.log(low), Math.log(high), from, to);
  return (value) => inner(Math.log(value));
}

function niceTicks(low, high, n = 5) {
  const rough = (high - low) / n || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(+(i * step).toPrecision(12));
  return ticks;
}
const logTicks = (low, high) =>
  [-3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((e) => [1, 2, 5].map((m) => m * 10 ** e)).filter((t) => low <= t && t <= high);

// An SVG with axes. x, y: {low, high, log, label, ticks, text}. Returns {node, sx, sy, box}.
function axes(width, height, x, y) {
  const box = { left: 56, right: width - 10, top: 10, bottom: height - 34 };
  const scale = (axis, from, to) => (axis.log ? logarithmic : linear)(axis.low, axis.high, from, to);
  const sx = scale(x, box.left, box.right), sy = scale(y, box.bottom, box.top);
  const node = el("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const tick of x.ticks || (x.log ? logTicks(x.low, x.high) : niceTicks(x.low, x.high))) {
    const at = sx(tick);
    node.append(el("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    node.append(el("text", { x: at, y: box.bottom + 14, "text-anchor": "middle" }, (x.text || brief)(tick)));
  }
  for (const tick of y.ticks || niceTicks(y.low, y.high)) {
    const at = sy(tick);
    node.append(el("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }));
    node.append(el("text", { x: box.left - 5, y: at + 4, "text-anchor": "end" }, (y.text || brief)(tick)));
  }
  node.append(el("text", { class: "axis", x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" }, x.label));
  if (y.label) {
    const middle = (box.top + box.bottom) / 2;
    const place = { x: 11, y: middle, "text-anchor": "middle", transform: `rotate(-90 11 ${middle})` };
    node.append(el("text", { class: "axis", ...place }, y.label));
  }
  return { node, sx, sy, box };
}

// One point. Its shape and colour are its method's.
function marker(shape, x, y, r, attributes) {
  const points = {
    square: `M${x - r},${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    diamond: `M${x},${y - 1.3 * r}l${1.3 * r},${1.3 * r}l${-1.3 * r},${1.3 * r}l${-1.3 * r},${-1.3 * r}z`,
    triangle: `M${x},${y - 1.2 * r}l${1.2 * r},${2.1 * r}h${-2.4 * r}z`,
  };
  if (shape === "circle") return el("circle", { cx: x, cy: y, r, class: "point", ...attributes });
  return el("path", { d: points[shape], class: "point", ...attributes });
}

// Bars of counts. at: edges, one more than counts. text: of each bar's tip.
function bars(width, height, counts, at, x, text, y = {}) {
  const high = Math.max(1, ...counts) * 1.05;
  const { node, sx, sy, box } = axes(width, height, x, { low: 0, high, text: whole, ...y });
  counts.forEach((count, i) => {
    if (!count) return;
    const from = sx(at[i]), to = sx(at[i + 1]), top = Math.min(sy(count), box.bottom - 1);
    const shape = { x: from + 0.5, y: top, width: Math.max(0.5, to - from - 1), height: box.bottom - top };
    node.append(el("rect", { class: "bar", "data-tip": text(i), ...shape }));
  });
  return node;
}

// A table cell's colour: share is 0 to 1.
const heat = (share) => (known(share) ? `--w:${Math.max(0, Math.min(1, share)).toFixed(3)}` : null);
