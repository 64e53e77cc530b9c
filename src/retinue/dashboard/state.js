// What the page knows (data), what its reader wants to see (state), and who must be told when that changes.
const data = JSON.parse(document.getElementById("data").textContent);
const allRows = data.rows.map((row, index) => ({ ...row, index }));
const pairs = new Map(data.pairs.map(([i, j, ...differences]) => [`${i}-${j}`, differences]));
const metricNamed = new Map(data.metrics.map((metric) => [metric.name, metric]));
const MAX_SERIES = 6;

const state = {
  set: data.sets.length ? data.sets[0].label : "",
  text: "",
  filters: {},
  ranges: {},
  chosen: [],
  metric: "accuracy_score",
  cost: data.costs[0].name,
};
const listeners = [];

function change(values) {
  Object.assign(state, values);
  for (const listener of listeners) listener();
}

function rowsOfSet() {
  return allRows.filter((row) => !state.set || row.set === state.set);
}

function visibleRows() {
  const terms = state.text.trim().split(/\s+/).filter(Boolean).map(termOf);
  return rowsOfSet().filter(
    (row) =>
      terms.every((term) => term(row)) &&
      Object.entries(state.filters).every(([key, value]) => !value || String(valueOf(row, key)) === value.slice(1)) &&
      Object.entries(state.ranges).every(([key, range]) => isWithin(valueOf(row, key), range)),
  );
}

/** A setting, metric or cost of a row; undefined where it has none. */
function valueOf(row, key) {
  for (const values of [row.metrics, row.cost, row.settings, data.common]) if (key in values) return values[key];
  return undefined;
}

/** A range is {low, high} of numbers or {values} of texts. */
function isWithin(value, range) {
  if (range.values) return range.values.includes(value === undefined ? MISSING : String(value));
  return value !== undefined && Number(value) >= range.low && Number(value) <= range.high;
}

/** What a word of the filter asks of a row: key=value, key<number, key>number, or a text anywhere. */
function termOf(word) {
  const [, name, sign, wanted] = /^([\w.]+)([=<>])(.+)$/.exec(word) || [];
  const keys = name ? keysNamed(name) : [];
  if (!keys.length) return (row) => searchable(row).includes(word.toLowerCase());
  if (sign === "=") return (row) => keys.some((key) => isSame(valueOf(row, key), wanted));
  const sense = sign === "<" ? 1 : -1;
  return (row) => keys.some((key) => sense * (Number(wanted) - Number(valueOf(row, key))) > 0);
}

function keysNamed(name) {
  const keys = new Set([...Object.keys(data.common), ...[...data.metrics, ...data.costs].map((column) => column.name)]);
  for (const row of allRows) for (const key of Object.keys(row.settings)) keys.add(key);
  const ends = [name, `${name}.name`, `${name}_score`];
  return [...keys].filter((key) => ends.some((end) => key === end || key.endsWith(`.${end}`)));
}

function isSame(value, wanted) {
  if (value === undefined) return false;
  return String(value).toLowerCase() === wanted.toLowerCase() || (wanted !== "" && Number(value) === Number(wanted));
}

function searchable(row) {
  if (!row.searchable) {
    const settings = Object.entries({ ...data.common, ...row.settings }).map(([key, value]) => `${key}=${value}`);
    row.searchable = [row.name, row.kind, row.revision, ...settings].join(" ").toLowerCase();
  }
  return row.searchable;
}

function toggleChosen(index) {
  const chosen = state.chosen.includes(index) ? state.chosen.filter((i) => i !== index) : [...state.chosen, index];
  change({ chosen });
}

/** Differences of two rows, the first minus the second, by metric; undefined where they were not compared. */
function differenceOf(a, b) {
  const found = pairs.get(`${Math.min(a, b)}-${Math.max(a, b)}`);
  if (!found) return undefined;
  const named = {};
  data.tested.forEach((metric, n) => {
    const [value, low, high, p] = found.slice(4 * n, 4 * n + 4);
    named[metric] = a < b ? { value, low, high, p } : { value: -value, low: -high, high: -low, p };
  });
  return named;
}

/** Class indices that the document packs: one byte each, two of more than 256 classes. */
function unpacked(text, classes) {
  const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  return classes.length > 256 ? new Uint16Array(bytes.buffer) : bytes;
}

/** The chosen rows of which the page has what `detail` takes, and a paragraph on those of which it has not, or null. */
function withDetail(detail) {
  const chosen = state.chosen.map((index) => allRows[index]);
  const rows = chosen.filter(detail);
  const names = chosen.filter((row) => !detail(row)).map(({ name }) => name);
  const why = `not on this page for ${names.join(", ")}: it has the details of ${data.details} experiments. `;
  const how = "What could not be read is in the notes; `retinue dashboard NAME …` makes a page of others.";
  return [rows, names.length ? paragraph(`This is ${why}${how}`, { class: "small quiet" }) : null];
}

function seriesOf(index) {
  return `series-${state.chosen.indexOf(index) % MAX_SERIES}`;
}

/** An HTML element; what is given as text stays text. */
function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An SVG element. */
function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function paragraph(text, attributes = {}) {
  return element("p", attributes, text);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function select(label, options, value, onchange) {
  const choices = options.map(({ name, text }) => element("option", { value: name, selected: name === value }, text));
  const list = element("select", {}, ...choices);
  list.addEventListener("change", () => onchange(list.value));
  return element("label", {}, `${label} `, list);
}

/** A place that is drawn again whenever something changes; what had the keyboard has it again. */
function interactive(section, draw) {
  const place = document.querySelector(`#${section} .interactive`);
  const reachable = () => [...place.querySelectorAll("select, input, button, summary, [tabindex]")];
  const redraw = () => {
    const held = reachable().indexOf(document.activeElement);
    place.replaceChildren(...draw(place).filter(Boolean));
    if (held >= 0) reachable()[held]?.focus({ preventScroll: true });
  };
  listeners.push(redraw);
  addEventListener("resize", redraw);
}
