// The index of a run: what the numbers say, and all of them.
"use strict";

(() => {
  const data = unmix.data.index, main = document.getElementById("main");
  const sites = [...new Set(data.rows.map((row) => row.site))], methods = [...new Set(data.rows.map((row) => row.method))];
  const colour = (method) => PALETTE[methods.indexOf(method) % PALETTE.length];
  const shape = (method) => SHAPES[methods.indexOf(method) % SHAPES.length];
  const at = (site) => data.rows.filter((row) => row.site === site);
  const href = (row) => row.page.split("/").map(encodeURIComponent).join("/");
  const linked = (row) => (row.page ? el("a", { href: href(row) }, row.name) : row.name);
  const counted = (n, one, several = `${one}s`) => `${whole(n)} ${n === 1 ? one : several}`;
  const marksOf = (row) => [...(row.warnings || []), ...(row.marks || [])];
  document.title = `${data.run}, unmix`;
  document.getElementById("title").textContent = `${data.run}: ${counted(data.rows.length, "dictionary", "dictionaries")} at ${counted(sites.length, "site")}`;

  function contents() {
    const headings = main.querySelectorAll("h2[id]");
    return el("nav", {}, Array.from(headings, (h) => el("a", { href: `#${h.id}` }, h.textContent)));
  }

  function says() {
    if (!data.conclusions.length) return [];
    const line = (one) => el("li", { class: one.kind }, el("b", {}, `${one.site}: `), one.text);
    const first = data.conclusions.slice(0, 8), others = data.conclusions.slice(8);
    return [
      el("h2", {}, "What the numbers say"),
      el("p", { class: "note" }, "Doubts first. A difference counts if its 95% interval over seeds does not hold 0."),
      el("ul", { class: "says" }, first.map(line)),
      others.length ? el("details", {}, el("summary", {}, `${others.length} more`), el("ul", { class: "says" }, others.map(line))) : null,
    ];
  }

  // Of each basis that is not sparse: [K, FVU] with its K largest coordinates kept.
  const basesOf = (rows) => rows.filter((row) => !row.sparse).map((row) => ({
    row, kept: Object.entries(row).filter(([name, v]) => /^fvu_at_l0_\d+$/.test(name) && known(v))
      .map(([name, v]) => [+name.slice(10), v]).sort((a, b) => a[0] - b[0]),
  })).filter(({ kept }) => kept.length);

  // FVU or CE score against L0: sparse dictionaries as points, others as what their largest coordinates keep. All plots of a
  // site have the same L0 axis.
  function frontier(rows, key, label, width) {
    const sparse = rows.filter((row) => row.sparse && row.l0 > 0), points = sparse.filter((row) => known(row[key]));
    const bases = basesOf(rows), curves = key === "fvu" ? bases : [];
    const l0 = [...sparse.map((row) => row.l0), ...bases.flatMap(({ kept }) => kept.map(([k]) => k))];
    const values = [...points.map((row) => row[key]), ...curves.flatMap(({ kept }) => kept.map(([, v]) => v))];
    if (!values.length) return el("p", { class: "note" }, `no dictionary here has ${label}`);
    const low = Math.min(...values), high = Math.max(...values), margin = 0.08 * (high - low || 0.1);
    const y = key === "fvu" ? { low: 0, high: high * 1.08 } : { low: low - margin, high: Math.max(high + margin, 1) };
    const x = { low: Math.min(...l0) / 1.5, high: Math.max(...l0) * 1.5, log: true, label: "L0, active features a token" };
    const { node, sx, sy } = axes(width, 280, x, { ...y, label });
    const mark = (row, k, v, r, text) => {
      const drawn = row.control ? { fill: "transparent", stroke: colour(row.method) } : { fill: colour(row.method) };
      const point = marker(shape(row.method), sx(k), sy(v), r, { ...drawn, "data-tip": text });
      return row.page ? el("svg:a", { href: href(row) }, point) : point;
    };
    for (const { row, kept } of curves) {
      node.append(el("polyline", { class: "curve", stroke: colour(row.method), points: kept.map(([k, v]) => `${sx(k)},${sy(v)}`).join(" ") }));
      for (const [k, v] of kept) node.append(mark(row, k, v, 2.5, `${row.name}, its ${k} largest coordinates\n${label} ${fixed(v)}`));
    }
    for (const row of points) {
      const r = 4 + 1.5 * Math.log2(Math.max(1, row.d_sae / row.d_in));
      node.append(mark(row, row.l0, row[key], r, `${row.name}${row.control ? ` (control: ${row.control})` : ""}\nL0 ${short(row.l0)}, ${label} ${fixed(row[key], 4)}, d_sae ${whole(row.d_sae)}`));
    }
    return node;
  }

  function frontiers() {
    const key = methods.map((method) => el("span", {},
      el("svg", { width: 14, height: 14 }, marker(shape(method), 7, 7, 4.5, { fill: colour(method) })), method));
    return [
      el("h2", { id: "frontier" }, "Reconstruction against sparsity"),
      el("p", { class: "note" }, "A point is a dictionary, larger for more features, hollow if it is a control; a line is a basis of which the largest coordinates "
        + "are kept. FVU: lower is better. CE score (zero ablation): 1 is the model as it is."),
      el("div", { class: "legend" }, key),
      sites.map((site) => [el("h3", {}, site), el("div", { class: "pair" },
        plotted((width) => frontier(at(site), "fvu", "FVU", width)),
        at(site).some((row) => known(row.ce_score_zero))
          ? plotted((width) => frontier(at(site), "ce_score_zero", "CE score", width)) : null)]),
    ];
  }

  const COLUMNS = [
    ["d_sae", "d_sae", whole],
    ["L0", "l0", (v) => fixed(v, 1)], ["FVU", "fvu", fixed], ["CE score", "ce_score_zero", fixed],
    ["KL", "kl", fixed], ["top-1", "top1", fixed], ["dead", "dead", whole],
    ["rare", "ultra_low_density", whole], ["label F1", "label_f1", fixed], ["labels ≥ .9", "labels_found", whole],
    ["rules ≥ .7", "rules_found", whole], ["control", "control", "text"], ["method", "method", "text"], ["site", "site", "text"],
  ];
  const EXPLAINED = {
    control: "what it is a control by: nothing is learned where a trained dictionary does no better",
    L0: "l0", FVU: "fvu", "CE score": "ce_score_zero, ce_score_mean", KL: "ce, kl", dead: "dead", rare: "ultra_low_density",
    "top-1": "top1", "label F1": "F1 of a label's best feature, mean over labels", "labels ≥ .9": "how many labels a single feature finds with F1 of at least .9",
    "rules ≥ .7": "how many features have a rule with F1 of at least .7",
  };

  function table() {
    const shown = COLUMNS.filter(([, key]) => data.rows.some((row) => known(row[key])));
    const columns = [["dictionary", "name", "text"], ...shown];
    const body = el("tbody"), head = el("tr");
    let sort = null;
    const cell = (row, [name, key, format]) => {
      if (name === "dictionary") return el("td", { class: "text" }, linked(row), marks(row));
      if (format === "text") return el("td", { class: "text" }, row[key]);
      const std = row.spread[key];
      return el("td", {}, row.close.includes(key) ? "~" : "", format(row[key]), known(std) ? el("small", {}, ` ± ${+std.toPrecision(2)}`) : null);
    };
    const marks = (row) => (marksOf(row).length ? el("span", { class: "mark", "data-tip": marksOf(row).join("\n") }, " !") : null);
    const fill = () => {
      const rows = [...data.rows];
      if (sort) {
        const [, key] = columns.find(([name]) => name === sort.name), sign = sort.down ? -1 : 1;
        rows.sort((a, b) => {
          const [x, y] = [a[key], b[key]];
          return (known(x) ? 0 : 1) - (known(y) ? 0 : 1) || sign * (x < y ? -1 : x > y ? 1 : 0);
        });
      }
      body.replaceChildren(...rows.map((row) => el("tr", {}, columns.map((column) => cell(row, column)))));
      head.replaceChildren(...columns.map(([name, , format]) => {
        const press = () => { sort = { name, down: sort?.name === name ? !sort.down : false }; fill(); };
        const direction = sort?.name === name ? (sort.down ? "descending" : "ascending") : null;
        const about = data.documentation[EXPLAINED[name]] ?? EXPLAINED[name];
        return el("th", { class: format === "text" ? "text" : null, "aria-sort": direction },
          el("button", { type: "button", "data-tip": about, onclick: press }, name));
      }));
    };
    fill();
    return [
      el("h2", { id: "scores" }, "Scores"),
      el("p", { class: "note" }, "A press on a column's name sorts by it. ±: standard deviation over seeds. "
        + "~: not apart from the next worse one of about its L0, by Welch's t at 95%, or by one seed alone."),
      el("div", { class: "wide" }, el("table", { id: "table", class: "sticky" }, el("thead", {}, head), body)),
    ];
  }

  function margins() {
    if (!data.margins.length) return [];
    const measures = [...new Set(data.margins.map((one) => one.measure))];
    const lines = [...new Set(data.margins.map((one) => JSON.stringify([one.site, one.name, one.against])))].map((line) => JSON.parse(line));
    const cell = (line, measure) => {
      const one = data.margins.find((m) => m.measure === measure && [m.site, m.name, m.against].every((part, k) => part === line[k]));
      if (!one) return el("td");
      const tip = `${one.name} ${one.own}, ${counted(one.n, "seed")}\n${one.other} ${one.theirs}\n`
        + (one.interval ? `95%: ${one.interval[0]} to ${one.interval[1]}` : "one seed alone on a side: its spread is not known");
      return el("td", { "data-tip": tip }, `${one.mark}${one.by}`, el("small", {}, ` ${one.other}`));
    };
    return [
      el("h2", { id: "margins" }, "Margins over controls"),
      el("p", { class: "note" }, "By how much a trained dictionary is better. ~: by nothing that counts; ?: of one seed, so that its spread is not known."),
      el("div", { class: "wide" }, el("table", { class: "sticky" },
        el("thead", {}, el("tr", {}, ["dictionary", "than", "site"].map((name) => el("th", { class: "text" }, name)), measures.map((name) => el("th", {}, name)))),
        el("tbody", {}, lines.map((line) => el("tr", {}, [line[1], line[2], line[0]].map((text) => el("td", { class: "text" }, text)), measures.map((name) => cell(line, name))))))),
    ];
  }

  function orderings() {
    if (!data.orderings.length) return [];
    const columns = [["ordering", "at equal L0"], ["verdict", "here"], ["source", "reported by"], ["site", "site"]];
    const row = (one) => el("tr", {}, columns.map(([key]) => el("td", { class: "text" }, one[key])),
      el("td", { "data-tip": `${one.less}\n${one.more}` }, one.values.join(", ")), el("td", {}, whole(one.d_sae)), el("td", {}, fixed(one.l0, 1)));
    return [
      el("h2", { id: "orderings" }, "Published orderings of families"),
      el("p", { class: "note" }, "L0 within 5%, as many features. Judged by Welch's t at 95% over seeds. The papers have other models and longer training."),
      el("div", { class: "wide" }, el("table", { class: "sticky" },
        el("thead", {}, el("tr", {}, columns.map(([, name]) => el("th", { class: "text" }, name)), ["values", "d_sae", "L0"].map((name) => el("th", {}, name)))),
        el("tbody", {}, data.orderings.map(row)))),
    ];
  }

  function mmcs() {
    if (!data.pairs.length) return [];
    return [
      el("h2", { id: "mmcs" }, "MMCS: do the features come back?"),
      el("p", { class: "note" }, "Mean over the row's live features of the largest cosine with any of the column's. The fuller the colour, the closer."),
      sites.map((site) => {
        const pairs = data.pairs.filter((pair) => pair.site === site), names = at(site).map((row) => row.name).filter((name) => pairs.some((pair) => pair.a === name || pair.b === name));
        if (!names.length) return null;
        const found = new Map(pairs.map((pair) => [JSON.stringify([pair.a, pair.b]), pair]));
        const cell = (a, b) => {
          const pair = found.get(JSON.stringify([a, b]));
          if (!pair) return el("td");
          const text = `${a}\nin ${b} (${pair.relation})\nMMCS ${fixed(pair.mmcs)}, random directions ${fixed(pair.random_floor)}`
            + (known(pair["fraction_above_0.9"]) ? `\nabove .9: ${fixed(100 * pair["fraction_above_0.9"], 1)}%` : "");
          return el("td", { style: heat(pair.mmcs), "data-tip": text }, fixed(pair.mmcs, 2).replace(/^0/, ""));
        };
        return [el("h3", {}, site), el("div", { class: "wide" }, el("table", { class: "heat sticky" },
          el("thead", {}, el("tr", { class: "turned" }, el("th"), names.map((name) => el("th", {}, el("span", {}, name))))),
          el("tbody", {}, names.map((a) => el("tr", {}, el("th", { class: "text" }, a), names.map((b) => cell(a, b)))))))];
      }),
    ];
  }

  function densities() {
    const rows = data.rows.filter((row) => row.densities && row.sparse);
    if (!rows.length) return [];
    const card = (row) => {
      const { low, counts, dead } = row.densities, step = -low / counts.length;
      const edges = Array.from({ length: counts.length + 1 }, (_, k) => low + k * step);
      const text = (k) => `density ${short(10 ** edges[k])} to ${short(10 ** edges[k + 1])}: ${whole(counts[k])} features`;
      const x = { low, high: 0, label: "density", ticks: Array.from({ length: -low + 1 }, (_, k) => low + k), text: (t) => (t ? `1e${t}` : "1") };
      return el("div", { class: "card" }, el("p", {}, linked(row), dead ? el("span", { class: "mark" }, ` ${whole(dead)} dead`) : ""),
        plotted((width) => bars(width, 150, counts, edges, x, text)));
    };
    return [
      el("h2", { id: "density" }, "How often features are active"),
      el("p", { class: "note" }, "Features, by the fraction of held-out rows on which each is active. Sparse dictionaries alone."),
      sites.filter((site) => rows.some((row) => row.site === site)).map((site) => [
        el("h3", {}, site), el("div", { class: "cards" }, rows.filter((row) => row.site === site).map(card))]),
    ];
  }

  function labels() {
    const places = Object.keys(data.labels);
    if (!places.length) return [];
    const measures = Object.keys(data.labels[places[0]]).filter((name) => /^(f1|auroc)_\d+$/.test(name));
    const words = (name) => { const [what, k] = name.split("_"); return `${what === "f1" ? "F1" : "AUROC"}, ${k === "1" ? "best feature" : `${k} features`}`; };
    const holder = el("div"), select = el("select", { id: "measure", "aria-label": "measure" }, measures.map((name) => el("option", { value: name }, words(name))));
    select.value = measures.includes("f1_1") ? "f1_1" : measures[0];
    const value = (place, label, measure = select.value) => { const of = data.labels[place], k = of.label.indexOf(label); return k < 0 ? null : of[measure]?.[k]; };
    const draw = () => holder.replaceChildren(...sites.flatMap((site) => {
      const rows = at(site).filter((row) => `${site}/${row.name}` in data.labels);
      if (!rows.length) return [];
      const place = (row) => `${site}/${row.name}`, all = [...new Set(rows.flatMap((row) => data.labels[place(row)].label))];
      const best = new Map(all.map((label) => [label, Math.max(...rows.map((row) => value(place(row), label) ?? -1))]));
      all.sort((a, b) => best.get(b) - best.get(a));
      const cell = (row, label) => {
        const of = data.labels[place(row)], k = of.label.indexOf(label), score = value(place(row), label);
        const feature = of[`features_${select.value.split("_")[1]}`]?.[k];
        const tip = `${label} in ${row.name}\n${words(select.value)}: ${fixed(score)}` + (feature?.length ? `\nfeature ${feature.join(", ")}` : "");
        const text = known(score) ? fixed(score, 2).replace(/^0/, "") : "";
        return el("td", { style: heat(score), class: score === best.get(label) ? "best" : null, "data-tip": tip },
          feature?.length && row.page ? el("a", { href: `${href(row)}#feature=${feature[0]}` }, text) : text);
      };
      // What stands beside the dictionaries: the probe on all coordinates, which is the same of each, and the best of chance.
      const beside = [["all", "all coordinates"], ["shuffled", "shuffled codes"]].map(([of, title]) => [`${select.value.split("_")[0]}_${of}`, title])
        .filter(([measure]) => rows.some((row) => measure in data.labels[place(row)]));
      const most = (label, measure) => Math.max(...rows.map((row) => value(place(row), label, measure) ?? -1));
      const score = (label, [measure, title]) => { const v = most(label, measure); return el("td", { style: heat(v), "data-tip": `${label}, ${title}: ${fixed(v)}` }, v < 0 ? "" : fixed(v, 2).replace(/^0/, "")); };
      const positive = (label) => { const of = data.labels[place(rows[0])]; return of.n_positive[of.label.indexOf(label)]; };
      return [el("h3", {}, site), el("div", { class: "wide" }, el("table", { class: "heat sticky" },
        el("thead", {}, el("tr", { class: "turned" }, el("th", {}, ""), rows.map((row) => el("th", {}, el("span", {}, row.name))), [...beside.map(([, title]) => title), "positives"].map((title) => el("th", {}, el("span", {}, title))))),
        el("tbody", {}, all.map((label) => el("tr", {}, el("th", { class: "text" }, label), rows.map((row) => cell(row, label)), beside.map((one) => score(label, one)),
          el("td", { style: "--w:0" }, whole(positive(label))))))))];
    }));
    select.addEventListener("change", draw);
    draw();
    return [
      el("h2", { id: "labels" }, "Labels that single features find"),
      el("p", { class: "note" }, "Chosen on one half of the held-out rows, measured on the other. The best of a row is bold; a press opens the feature. "
        + "All coordinates: a logistic probe with a penalty of .01, which converges. Shuffled codes: the best that any dictionary's 32 densest features reach by chance. ", select),
      holder,
    ];
  }

  main.append(...[says(), frontiers(), table(), margins(), orderings(), mmcs(), densities(), labels()].flat(Infinity).filter(Boolean));
  main.prepend(contents());
})();
