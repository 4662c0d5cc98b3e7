// What both kinds of page share: elements, numbers, the text of tokens, tips, dark and light.
"use strict";

const SVG = new Set(["svg", "svg:a", "path", "rect", "circle", "line", "text", "polyline"]);

// An element. Attributes that are null are left out; children are nodes or text, never markup.
function el(tag, attributes, ...children) {
  const node = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag.replace("svg:", "")) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);

// Three significant digits, no exponent between .001 and a million; nothing for what is not known.
function short(value) {
  if (!known(value)) return "";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3) return value.toExponential(1);
  if (size >= 1e6) return value.toExponential(2);
  return size >= 100 ? whole(value) : value.toPrecision(3);
}

// One digit where an exponent is needed: for ticks.
const brief = (value) => (value && Math.abs(value) < 1e-2 ? value.toExponential(0) : `${+value.toPrecision(3)}`);
const fixed = (value, digits = 3) => (known(value) ? (+value.toFixed(digits) + 0).toFixed(digits) : "");
const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "");

const SIGNS = { "\n": "↵", "\t": "⇥" };
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/u;

// The sign of a character that would not be seen, or would move what is around it.
function sign(character) {
  return SIGNS[character] ?? `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

// A text as nodes, every character of it seen. spaces: whether they are marked too.
function seen(text, spaces) {
  const nodes = [];
  let plain = "";
  const flush = () => { if (plain) nodes.push(plain); plain = ""; };
  for (const character of text) {
    if (UNSEEN.test(character) || (spaces && character === " ")) {
      flush();
      nodes.push(el("span", { class: "sign" }, character === " " ? "·" : sign(character)));
    } else plain += character;
  }
  flush();
  return nodes.length ? nodes : [el("span", { class: "sign" }, "∅")];
}

// The same as one string, for tips and for searching.
const seenText = (text) => Array.from(text, (c) => (UNSEEN.test(c) ? sign(c) : c)).join("");

let texts = null;
function tokenText(id) {
  if (!texts) {
    const { ids, texts: found } = unmix.data.tokens;
    texts = new Map(Array.from(unmix.decode(ids), (token, i) => [token, found[i]]));
  }
  return texts.get(id);
}
const tokenNodes = (id, spaces) => {
  const text = tokenText(id);
  return text === undefined ? [el("span", { class: "sign" }, `#${id}`)] : seen(text, spaces);
};
const chip = (id, more) => el("span", { class: "chip", dir: "ltr", ...more }, tokenNodes(id, true));

// Tips: of what has data-tip, on hover and on tap.
const tip = el("div", { id: "tip", role: "tooltip", hidden: true });
function showTip(event) {
  const of = event.target.closest?.("[data-tip]");
  tip.hidden = !of;
  if (!of) return;
  tip.textContent = of.dataset.tip;
  const at = of.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.max(4, Math.min(at.left, innerWidth - size.width - 4));
  tip.style.left = `${left}px`;
  tip.style.top = `${at.top > size.height + 8 ? at.top - size.height - 6 : at.bottom + 6}px`;
}
document.addEventListener("pointerover", showTip);
document.addEventListener("click", showTip);
document.addEventListener("scroll", () => { tip.hidden = true; }, true);

// Dark and light: as the system has it until the button is pressed. A page from disk may have no storage.
const remembered = {
  get: () => { try { return localStorage.getItem("unmix-theme"); } catch { return null; } },
  set: (theme) => { try { localStorage.setItem("unmix-theme", theme); } catch { /* not remembered */ } },
};
function applyTheme(theme) {
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const button = document.getElementById("theme");
  if (button) button.textContent = dark ? "light" : "dark";
}
applyTheme(remembered.get());
document.addEventListener("DOMContentLoaded", () => {
  document.body.append(tip);
  applyTheme(remembered.get());
  document.getElementById("theme").addEventListener("click", () => {
    const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remembered.set(theme);
    applyTheme(theme);
  });
});
