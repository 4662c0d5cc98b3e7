// A feature's own view, from the part of the data that it lies in.
"use strict";

const NO_VALUE = -32768, STEPS = 32767;

// The decoded part with this feature. Rejected: its file is missing.
async function partOf(feature, size) {
  const n = Math.floor(feature / size), raw = await unmix.load(`part-${n}`, `data/part-${n}.js`);
  if (!raw.decoded) {
    const { start, contexts, ...columns } = raw;
    raw.decoded = { start, ...unmix.decodeAll(columns), contexts: unmix.decodeAll(contexts) };
    const first = new Uint32Array(raw.decoded.contexts.n.length + 1);
    raw.decoded.contexts.n.forEach((count, i) => { first[i + 1] = first[i] + count; });
    raw.decoded.contexts.first = first;
  }
  return raw.decoded;
}

const ABOUT = {
  density: "fraction of rows on which it is active",
  "active on": "rows on which it is active",
  "largest": "its largest |activation|",
  "mean": "mean |activation| where it is active",
  "decoder norm": "length of its decoder row",
  "encoder norm": "length of its encoder column",
};

function featureView(feature, columns, part, data) {
  const i = feature - part.start, at = (name) => part[name].at(i);
  const alive = columns.density[feature] > 0;
  return [
    ...naming(feature, columns, part, i, alive),
    el("dl", { class: "numbers" }, Object.entries({
      density: alive ? short(columns.density[feature]) : "0",
      "active on": whole(columns.n_active[feature]),
      "largest": short(columns.max[feature]),
      "mean": short(part.mean[i]),
      "decoder norm": short(part.decoder_norm[i]),
      "encoder norm": short(part.encoder_norm[i]),
    }).filter(([, value]) => value !== "").map(([name, value]) =>
      el("div", { "data-tip": ABOUT[name] }, el("dt", {}, name), el("dd", {}, value)))),
    el("div", { class: "columns" },
      activationHistogram(at("histogram"), data.edges),
      tokenList("Promoted tokens", "logits that its decoder row raises most", columns.promoted_tokens.at(feature), at("promoted_logits")),
      tokenList("Suppressed tokens", "logits that it lowers most", at("suppressed_tokens"), at("suppressed_logits"))),
    ...contextGroups(part.contexts, i),
    el("div", { class: "columns" },
      links("Neighbours", "decoder cosine, in this dictionary", at("neighbours"), at("neighbour_cosines"), () => ""),
      links("Elsewhere", "the nearest feature of each other dictionary of the site, by decoder cosine, eight at most", at("elsewhere_feature"),
        at("elsewhere_cosine"), (k) => at("elsewhere_dictionary")[k], data.pages),
      links("Fires together with", "phi coefficient of being active on the same rows", at("cofiring"), at("cofiring_phi"), () => "")),
  ];
}

function naming(feature, columns, part, i, alive) {
  const lines = [];
  if (!alive) lines.push(el("p", { class: "named mark" }, "Dead: active on none of the scored rows."));
  if (columns.label[feature]) {
    const scores = ` (F1 ${fixed(columns.label_f1[feature], 2)}, AUROC ${fixed(columns.label_auroc[feature], 2)})`;
    lines.push(el("p", { class: "named" }, "Best label: ", el("b", {}, seenText(columns.label[feature])), scores));
  }
  if (columns.rule[feature]) {
    const share = known(part.rule_share[i]) ? `, explains ${fixed(100 * part.rule_share[i], 0)}% of its activation` : "";
    const scores = ` (precision ${fixed(part.rule_precision[i], 2)}, recall ${fixed(part.rule_recall[i], 2)}, `
      + `F1 ${fixed(columns.rule_f1[feature], 2)}${share})`;
    lines.push(el("p", { class: "named" }, "Best rule: ", el("b", {}, seenText(columns.rule[feature])), scores));
  }
  return lines;
}

// Counts in the half-octave bins of |z|, those in use.
function activationHistogram(counts, edges) {
  const used = Array.from(counts.keys()).filter((bin) => counts[bin] > 0);
  if (!used.length) return null;
  const low = Math.max(0, used[0] - 1), high = Math.min(counts.length, used[used.length - 1] + 2);
  const shown = Array.from(counts.slice(low, high)), at = edges.slice(low, high + 1);
  const all = shown.reduce((sum, count) => sum + count, 0);
  const ticks = edges.filter((edge, k) => k >= low && k <= high && k % 2 === 0);
  const every = Math.ceil(ticks.length / 4);
  const x = { low: at[0], high: at[at.length - 1], log: true, label: "|activation|, where active", text: brief,
    ticks: ticks.filter((_, k) => k % every === 0) };
  const text = (k) => `${short(at[k])} to ${short(at[k + 1])}: ${whole(shown[k])} rows, ${fixed((100 * shown[k]) / all, 1)}%`;
  return el("div", {}, el("h3", {}, "Rows by |activation|"), plotted((width) => bars(width, 230, shown, at, x, text)));
}

function tokenList(title, about, ids, logits) {
  if (!ids.length) return null;
  const lines = Array.from(ids, (id, k) => el("li", {}, chip(id, { "data-tip": `token ${id}` }), el("span", {}, fixed(logits[k], 3))));
  return el("div", {}, el("h3", { "data-tip": about }, title), el("ul", {}, lines));
}

// pages: names of dictionaries with a page; undefined: the links are to this one.
function links(title, about, features, values, name, pages) {
  if (!features.length) return null;
  const lines = Array.from(features, (feature, k) => {
    const other = name(k), text = other ? `${other} ${feature}` : `${feature}`;
    const href = !other ? `#feature=${feature}` : pages.includes(other) ? `../${encodeURIComponent(other)}/index.html#feature=${feature}` : null;
    return el("li", {}, href ? el("a", { href }, text) : el("span", {}, text), el("span", {}, fixed(values[k], 2)));
  });
  return el("div", {}, el("h3", { "data-tip": about }, title), el("ul", {}, lines));
}

function contextGroups(contexts, i) {
  const groups = new Map();
  for (let row = contexts.first[i]; row < contexts.first[i + 1]; row++) {
    const group = contexts.group[row];
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push(row);
  }
  const last = Math.max(0, ...groups.keys());
  return [...groups].flatMap(([group, rows]) => {
    const values = rows.map((row) => contexts.value[row]);
    const range = `${short(Math.min(...values))} to ${short(Math.max(...values))}`;
    const place = group === 1 ? ", the strongest" : group === last ? ", the weakest" : "";
    const title = group === 0 ? `Largest activations: ${range}` : `Sampled, quantile group ${group} of ${last}${place}: ${range}`;
    return [el("h3", {}, title), el("ol", { class: "contexts" }, rows.map((row) => contextLine(contexts, row, contexts.scale[i])))];
  });
}

function contextLine(contexts, row, scale) {
  const ids = contexts.tokens.at(row), from = contexts.tokens.offsets[row];
  const steps = contexts.steps.subarray(from, from + ids.length), start = contexts.start[row], peak = contexts.position[row] - start;
  const tokens = Array.from(ids, (id, k) => {
    const none = steps[k] === NO_VALUE, share = none ? 0 : steps[k] / STEPS;
    const name = ["t", share > 0 ? "on" : share < 0 ? "minus" : "", none ? "kept-not" : "", k === peak ? "peak" : ""];
    const value = none ? "no activation is kept here" : k === peak ? short(contexts.value[row]) : short(share * scale);
    const about = `${seenText(tokenText(id) ?? `#${id}`)}\n${value}\ntoken ${id}, position ${start + k}`;
    const style = share ? `--w:${Math.abs(share).toFixed(3)}` : null;
    return el("span", { class: name.filter(Boolean).join(" "), dir: "ltr", style, "data-tip": about }, tokenNodes(id, false));
  });
  const where = `held-out sequence ${contexts.sequence[row]}, position ${contexts.position[row]}`;
  return el("li", {}, el("span", { class: "value", "data-tip": where }, short(contexts.value[row])), el("span", { class: "text" }, tokens));
}
