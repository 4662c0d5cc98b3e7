// Data files call unmix.add(NAME, VALUE). Columns are decoded here; columns.py writes them.
"use strict";
const unmix = { data: {}, waiting: {} };

unmix.add = (name, value) => {
  unmix.data[name] = value;
  for (const resolve of unmix.waiting[name] || []) resolve(value);
  delete unmix.waiting[name];
};

// The value of a data file beside the page, run once. fetch() may not read a file of a page that is opened from disk.
unmix.load = (name, path) => {
  if (name in unmix.data) return Promise.resolve(unmix.data[name]);
  return new Promise((resolve, reject) => {
    const first = !(name in unmix.waiting);
    (unmix.waiting[name] ||= []).push(resolve);
    if (!first) return;
    const element = document.createElement("script");
    element.src = path;
    element.onerror = () => reject(new Error(`${path} is missing`));
    document.head.append(element);
  });
};

const KINDS = {
  u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, i16: Int16Array, i32: Int32Array, f32: Float32Array, f64: Float64Array,
};

// A typed array, an array of strings, or of a column of lists an object whose at(i) is the i-th list.
unmix.decode = (column) => {
  if (column.t === "list") {
    const lengths = unmix.decode(column.n), values = unmix.decode(column.v);
    const offsets = new Uint32Array(lengths.length + 1);
    lengths.forEach((n, i) => { offsets[i + 1] = offsets[i] + n; });
    const slice = (i) => values.slice(offsets[i], offsets[i + 1]);
    return { length: lengths.length, offsets, values, at: slice };
  }
  if (column.t === "str") return Array.from(unmix.decode(column.c), (code) => (code < 0 ? null : column.w[code]));
  const text = atob(column.d), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new KINDS[column.t](bytes.buffer);
};

unmix.decodeAll = (columns) => Object.fromEntries(Object.entries(columns).map(([name, c]) => [name, unmix.decode(c)]));
