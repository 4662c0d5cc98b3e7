// The page of a dictionary: its list, the view of the feature that the address names, and the keys.
"use strict";

(() => {
  const data = unmix.data.features, row = data.row, columns = unmix.decodeAll(data.columns);
  const panes = document.getElementById("panes"), view = document.getElementById("view"), search = document.getElementById("search");
  document.title = `${row.name}, ${row.site}`;
  document.getElementById("title").textContent = `${row.name} at ${row.site}`;
  const spread = (key) => (known(data.spread[key]) ? ` ± ${+data.spread[key].toPrecision(2)}` : ""); // over seeds
  const facts = [
    `${data.run}: ${whole(row.d_sae)} features, ${whole(row.dead)} dead`, `L0 ${short(row.l0)}${spread("l0")}`, `FVU ${fixed(row.fvu)}${spread("fvu")}`,
    known(row.ce_score_zero) ? `CE score ${fixed(row.ce_score_zero)}${spread("ce_score_zero")}` : "", `${whole(row.n_rows)} held-out rows`,
  ];
  document.getElementById("facts").textContent = facts.filter(Boolean).join(" · ");
  const marks = [...(row.warnings || []), ...(row.marks || [])];
  if (marks.length) document.querySelector("header").append(el("p", { class: "mark" }, `! ${marks.join("; ")}`));

  const named = () => { // the feature of the address, or null
    const match = /^#feature=(\d+)$/.exec(location.hash);
    return match && +match[1] < columns.density.length ? +match[1] : null;
  };
  const open = (feature) => { location.hash = `feature=${feature}`; };
  const replace = (feature) => location.replace(`#feature=${feature}`);
  const close = () => { location.hash = ""; };
  const list = new FeatureList(columns, open);

  async function show() {
    const feature = named();
    view.hidden = feature === null;
    panes.classList.toggle("open", feature !== null);
    list.show(feature);
    if (feature === null) return;
    const top = el("div", { class: "bar-top" },
      el("h2", {}, `Feature ${feature}`),
      el("button", { type: "button", onclick: () => step(-1), "data-tip": "previous in the list" }, "‹"),
      el("button", { type: "button", onclick: () => step(1), "data-tip": "next in the list" }, "›"),
      el("button", { type: "button", id: "close", onclick: close, "data-tip": "back to the list" }, "close"));
    let shown;
    try {
      const part = await partOf(feature, data.part);
      shown = featureView(feature, columns, part, data);
    } catch (error) {
      shown = [el("p", { class: "mark" }, error.message)];
    }
    if (named() !== feature) return; // another one was opened meanwhile
    view.replaceChildren(top, ...shown.filter(Boolean));
    view.scrollTop = 0;
    view.dataset.feature = feature;
  }

  function step(by) {
    const feature = list.step(by);
    if (feature !== null && named() !== null) replace(feature);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const typing = event.target === search;
    if (event.key === "Escape") {
      if (typing) search.blur();
      else if (named() !== null) close();
      return;
    }
    if (event.key === "Enter" && (typing || event.target === document.body || event.target === list.rows)) {
      const feature = list.chosen < 0 ? list.step(1) : list.order[list.chosen];
      if (feature !== null) open(feature);
      if (typing) search.blur();
      event.preventDefault();
      return;
    }
    if (typing) return;
    const by = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (by) step(by);
    else if (event.key === "/") { if (matchMedia("(max-width: 760px)").matches && named() !== null) close(); search.focus(); search.select(); }
    else return;
    event.preventDefault();
  });
  addEventListener("hashchange", show);
  show();
})();
