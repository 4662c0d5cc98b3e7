// The list of all features: only the rows that are in sight are in the page.
"use strict";

class FeatureList {
  // columns: decoded. open(feature): called when one is chosen.
  constructor(columns, open) {
    this.columns = columns;
    this.open = open;
    this.n = columns.density.length;
    this.query = "";
    this.alive = false;
    this.sort = { name: "feature", down: false };
    this.rows = document.getElementById("rows");
    this.space = document.getElementById("space");
    this.chosen = -1; // place in this.order
    this.current = null; // the feature that is open
    this.order = [];
    this.listen();
    this.drawSort();
    this.arrange();
  }

  listen() {
    const search = document.getElementById("search"), alive = document.getElementById("alive");
    search.addEventListener("input", () => { this.query = search.value; this.arrange(); });
    alive.addEventListener("change", () => { this.alive = alive.checked; this.arrange(); });
    document.getElementById("tools").addEventListener("submit", (event) => { event.preventDefault(); this.rows.focus(); });
    this.rows.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.rows);
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.open(+row.dataset.feature);
    });
  }

  // What a column is sorted by; NaN and null come last.
  static KEYS = [
    ["feature", "feature", null, "the index of the feature in the dictionary"],
    ["density", "density", "density", "the fraction of rows on which it is active"],
    ["max", "max", "max", "its largest activation"],
    ["active", "active at", "active_at", "the tokens at which it is most active"],
    ["label", "label", "label_f1", "the label that it finds best, with F1 on the other half; sorted by F1"],
    ["rule", "rule", "rule_f1", "the rule that fits it best, with F1 on the other half; sorted by F1"],
    ["promotes", "promotes", "promoted_tokens", "the tokens whose logits its decoder row raises most"],
    ["near", "nearest", "nearest_cosine", "the other feature of this dictionary with the largest decoder cosine"],
  ];

  drawSort() {
    const buttons = FeatureList.KEYS.map(([name, text, , about]) => {
      const press = () => {
        const down = this.sort.name === name ? !this.sort.down : !["feature", "active", "promotes"].includes(name);
        this.sort = { name, down };
        this.drawSort();
        this.arrange();
      };
      const direction = this.sort.name === name ? (this.sort.down ? "descending" : "ascending") : null;
      return el("button", { type: "button", "data-key": name, "data-sort": direction, "data-tip": about, onclick: press }, text);
    });
    document.getElementById("sort").replaceChildren(...buttons);
  }

  // What of a feature is searched, in lower case.
  text(feature) {
    this.texts ||= [];
    if (this.texts[feature] === undefined) {
      const ids = [...this.columns.active_at.at(feature), ...this.columns.promoted_tokens.at(feature)];
      const tokens = ids.map((id) => seenText(tokenText(id) ?? `#${id}`));
      const words = [this.columns.label[feature], this.columns.rule[feature], ...tokens];
      this.texts[feature] = words.filter((word) => typeof word === "string").join("\n").toLowerCase();
    }
    return this.texts[feature];
  }

  // Every word of the query is in the feature's text; a number may be the index's beginning, #12 is the feature 12.
  matches(feature, words) {
    return words.every((word) => {
      if (/^#\d+$/.test(word)) return feature === +word.slice(1);
      return (/^\d+$/.test(word) && `${feature}`.startsWith(word)) || this.text(feature).includes(word);
    });
  }

  arrange() {
    const words = this.query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (let i = 0; i < this.n; i++) {
      if (this.alive && !(this.columns.density[i] > 0)) continue;
      if (!words.length || this.matches(i, words)) found.push(i);
    }
    const [name, , key] = FeatureList.KEYS.find(([own]) => own === this.sort.name);
    const sign = this.sort.down ? -1 : 1;
    if (name === "active" || name === "promotes") {
      const top = (i) => { const ids = this.columns[key].at(i); return ids.length ? tokenText(ids[0]) ?? "" : ""; };
      const texts = new Map(found.map((i) => [i, top(i)]));
      found.sort((a, b) => sign * (texts.get(a) < texts.get(b) ? -1 : texts.get(a) > texts.get(b) ? 1 : 0) || a - b);
    } else if (key) {
      const values = this.columns[key], last = (i) => (known(values[i]) ? 0 : 1);
      found.sort((a, b) => last(a) - last(b) || sign * (values[a] - values[b]) || a - b);
    } else if (this.sort.down) found.reverse();
    this.order = found;
    this.chosen = this.current === null ? -1 : found.indexOf(this.current);
    document.getElementById("count").textContent =
      found.length === this.n ? `${whole(this.n)} features` : `${whole(found.length)} of ${whole(this.n)}`;
    this.rows.scrollTop = 0;
    this.draw();
  }

  // A row's height, as report.css has it.
  get height() { return this.rows.clientWidth > 900 ? 30 : 52; }

  draw() {
    document.getElementById("sort").style.setProperty("--bar", `${this.rows.offsetWidth - this.rows.clientWidth}px`);
    const height = this.height, total = this.order.length * height;
    if (this.space.style.height !== `${total}px`) this.space.style.height = `${total}px`;
    const first = Math.max(0, Math.floor(this.rows.scrollTop / height) - 6);
    const last = Math.min(this.order.length, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / height) + 6);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.row(place, height));
    this.space.replaceChildren(...rows);
  }

  row(place, height) {
    const i = this.order[place], c = this.columns, dead = !(c.density[i] > 0);
    const scored = (text, f1) => (text ? [seenText(text), el("span", { class: "f1" }, ` ${fixed(f1, 2)}`)] : []);
    const nearest = known(c.nearest[i]) ? `${c.nearest[i]} (${fixed(c.nearest_cosine[i], 2)})` : "";
    const name = `row${dead ? " dead" : ""}${place === this.chosen ? " chosen" : ""}`;
    return el("div", { class: name, "data-feature": i, style: `top:${place * height}px` },
      el("a", { class: "id", href: `#feature=${i}`, tabindex: -1 }, `${i}`),
      el("span", { class: "density" }, dead ? "dead" : short(c.density[i])),
      el("span", { class: "max" }, dead ? "" : short(c.max[i])),
      el("span", { class: "active" }, Array.from(c.active_at.at(i), (id) => chip(id))),
      el("span", { class: "label", title: c.label[i] ? seenText(c.label[i]) : null }, ...scored(c.label[i], c.label_f1[i])),
      el("span", { class: "rule", title: c.rule[i] ? seenText(c.rule[i]) : null }, ...scored(c.rule[i], c.rule_f1[i])),
      el("span", { class: "tokens" }, Array.from(c.promoted_tokens.at(i).slice(0, 5), (id) => chip(id))),
      el("span", { class: "near" }, nearest));
  }

  // Choose the place that many after the chosen one; returns its feature.
  step(by) {
    if (!this.order.length) return null;
    this.chosen = Math.max(0, Math.min(this.order.length - 1, this.chosen + by));
    this.reveal();
    return this.order[this.chosen];
  }

  // The feature that is open, or null.
  show(feature) {
    this.current = feature;
    if (feature !== null) this.chosen = this.order.indexOf(feature);
    this.reveal();
  }

  reveal() {
    const height = this.height, top = this.chosen * height;
    if (this.chosen >= 0 && (top < this.rows.scrollTop || top + height > this.rows.scrollTop + this.rows.clientHeight)) {
      this.rows.scrollTop = top - this.rows.clientHeight / 2 + height;
    }
    this.draw();
  }
}
