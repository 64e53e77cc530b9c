// Parallel coordinates: a line is an experiment, a stretch marked on an axis keeps the lines that cross it.
const HEIGHT = 300;
const AXIS_TOP = 46;
const AXIS_BOTTOM = HEIGHT - 22;
const AXIS_WIDTH = 120;
const MAX_VALUE = 16;
let rangesOpen = false;

function drawParallel(place) {
  const rows = rowsOfSet();
  const axes = parallelAxes(rows);
  if (axes.length < 2 || rows.length < 2) return [paragraph("It takes two experiments that differ.")];
  const hint =
    "Drag along an axis to keep what crosses that stretch, here and everywhere on the page; a click on the axis lets go. " +
    "A click on a line chooses its experiment. The greener a line, the higher the rank of its accuracy.";
  const width = Math.max(place.clientWidth - 32, axes.length * AXIS_WIDTH);
  const region = { class: "scroll full", tabindex: 0, role: "region", "aria-label": "Parallel coordinates" };
  const drawing = element("div", region, parallelDrawing(rows, axes, width));
  return [paragraph(hint, { class: "small quiet" }), drawing, rangeInputs(axes)];
}

/** Changed settings, then scores and costs; what does not differ among `rows` has no axis. */
function parallelAxes(rows) {
  const scores = data.metrics.filter(({ name }) => ["accuracy_score", "auc_score", "log_loss"].includes(name));
  const wanted = [...data.changed, ...data.costs.slice(0, 1), ...scores];
  return wanted.map(({ name, text }) => parallelAxis(name, text, rows.map((row) => valueOf(row, name)))).filter(Boolean);
}

function parallelAxis(name, text, values) {
  const distinct = [...new Set(values.map((value) => (value === undefined ? MISSING : String(value))))];
  if (distinct.length < 2) return null;
  const length = AXIS_BOTTOM - AXIS_TOP;
  const known = distinct.filter((value) => value !== MISSING);
  const isNumeric = known.every((value) => Number.isFinite(Number(value)));
  if (isNumeric) return numericAxis(name, text, known.map(Number), known.length < distinct.length);
  distinct.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  const place = (value) => AXIS_BOTTOM - ((distinct.indexOf(value === undefined ? MISSING : String(value)) + 0.5) / distinct.length) * length;
  const short = (value) => (value.length > MAX_VALUE ? `${value.slice(0, MAX_VALUE - 1)}…` : value);
  return { name, text, numeric: false, y: place, values: distinct, ticks: distinct.map((value) => [place(value), short(value)]) };
}

/** What has no value runs below the axis, at a dash. */
function numericAxis(name, text, known, hasMissing) {
  const bottom = AXIS_BOTTOM - (hasMissing ? 28 : 0);
  const scale = axisAround(text, known, { mayBeLog: true });
  const y = (value) => (value === undefined ? AXIS_BOTTOM : bottom - scale.place(Number(value)) * (bottom - AXIS_TOP));
  const apart = known.length <= 5 && known.every((a) => known.every((b) => a === b || Math.abs(y(a) - y(b)) > 13));
  const ticks = (apart ? known : scale.ticks).map((value) => [y(value), tickText(value)]);
  if (hasMissing) ticks.push([AXIS_BOTTOM, MISSING]);
  const at = (pixel) => scale.at((bottom - pixel) / (bottom - AXIS_TOP));
  return { name, text, numeric: true, y, at, ticks, low: Math.min(...known), high: Math.max(...known) };
}

function parallelDrawing(rows, axes, width) {
  const label = `${rows.length} experiments over ${axes.length} axes`;
  const size = { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT };
  const drawing = shape("svg", { class: "plot parallel", ...size, role: "group", "aria-label": label });
  const step = (width - AXIS_WIDTH) / (axes.length - 1);
  const across = axes.map((_, n) => AXIS_WIDTH / 2 + n * step - 14);
  const visible = new Set(visibleRows().map((row) => row.index));
  const rank = (row) => state.chosen.includes(row.index) * 2 + visible.has(row.index);
  const ordered = [...rows].sort((a, b) => a.metrics.accuracy_score - b.metrics.accuracy_score);
  const share = new Map(ordered.map((row, n) => [row, n / (rows.length - 1)]));
  for (const row of ordered.sort((a, b) => rank(a) - rank(b))) {
    drawing.append(parallelLine(row, axes, across, visible.has(row.index), share.get(row)));
  }
  axes.forEach((axis, n) => drawing.append(parallelScale(axis, across[n], drawing)));
  return drawing;
}

function parallelLine(row, axes, across, shown, share) {
  const points = axes.map((axis, n) => `${across[n]},${axis.y(valueOf(row, axis.name)).toFixed(1)}`).join(" ");
  const chosen = state.chosen.includes(row.index) ? ` ${seriesOf(row.index)}` : "";
  const style = `--share: ${share.toFixed(2)}`;
  const attributes = { class: `strand${shown ? chosen : " out"}`, points, style, "data-row": row.index };
  return shape("polyline", { ...attributes, onclick: () => toggleChosen(row.index) }, shape("title", {}, row.name));
}

function parallelScale(axis, x, drawing) {
  const group = shape("g", { class: "scale", "data-axis": axis.name });
  const name = axis.text.length > 15 ? `${axis.text.slice(0, 14)}…` : axis.text;
  group.append(shape("text", { class: "name", x, y: 18, "text-anchor": "middle" }, name, shape("title", {}, axis.name)));
  group.append(shape("line", { class: "axis", x1: x, x2: x, y1: AXIS_TOP, y2: AXIS_BOTTOM }));
  for (const [y, text] of axis.ticks) {
    group.append(shape("line", { class: "axis", x1: x - 3, x2: x + 3, y1: y, y2: y }));
    group.append(shape("text", { class: "tick halo", x: x + 7, y: y + 4 }, text));
  }
  const range = state.ranges[axis.name];
  if (range) group.append(shape("rect", { class: "brush", x: x - 8, width: 16, ...brushSpan(axis, range) }));
  const handle = shape("rect", { class: "handle", x: x - 14, y: AXIS_TOP - 8, width: 28, height: AXIS_BOTTOM - AXIS_TOP + 16 });
  handle.addEventListener("pointerdown", (event) => brush(event, axis, x, drawing));
  group.append(handle);
  return group;
}

function brushSpan(axis, range) {
  const places = axis.numeric ? [range.low, range.high].map(axis.y) : range.values.map(axis.y);
  const half = axis.numeric ? 1 : (AXIS_BOTTOM - AXIS_TOP) / axis.values.length / 2;
  const [top, bottom] = [Math.min(...places) - half, Math.max(...places) + half];
  return { y: top, height: bottom - top };
}

/** Follows the pointer from where it went down; what lies between is the range, and nothing at all lets go. */
function brush(event, axis, x, drawing) {
  event.preventDefault();
  const pixel = (e) => {
    const box = drawing.getBoundingClientRect();
    return Math.max(AXIS_TOP - 4, Math.min(AXIS_BOTTOM + 4, ((e.clientY - box.top) / box.height) * HEIGHT));
  };
  const begun = pixel(event);
  const mark = shape("rect", { class: "brush", x: x - 8, width: 16, y: begun, height: 0 });
  drawing.append(mark);
  const move = (e) => {
    mark.setAttribute("y", Math.min(begun, pixel(e)));
    mark.setAttribute("height", Math.abs(pixel(e) - begun));
  };
  const end = (e) => {
    removeEventListener("pointermove", move);
    const [top, bottom] = [Math.min(begun, pixel(e)), Math.max(begun, pixel(e))];
    setRange(axis, bottom - top < 4 ? null : rangeOf(axis, top, bottom));
  };
  addEventListener("pointermove", move);
  addEventListener("pointerup", end, { once: true });
}

function rangeOf(axis, top, bottom) {
  if (axis.numeric) return { low: axis.at(bottom), high: axis.at(top) };
  const values = axis.values.filter((value) => axis.y(value) >= top && axis.y(value) <= bottom);
  return values.length ? { values } : null;
}

function setRange(axis, range) {
  const ranges = { ...state.ranges, [axis.name]: range };
  if (!range) delete ranges[axis.name];
  change({ ranges });
}

/** The same ranges by keyboard. */
function rangeInputs(axes) {
  const field = (axis, end) => {
    const label = `${axis.text}, ${end === "low" ? "at least" : "at most"}`;
    const value = state.ranges[axis.name]?.[end] ?? "";
    const input = element("input", { type: "number", step: "any", value, placeholder: axis[end], "aria-label": label });
    input.addEventListener("change", () => {
      const typed = input.value === "" ? axis[end] : Number(input.value);
      const range = { low: axis.low, high: axis.high, ...state.ranges[axis.name], [end]: typed };
      setRange(axis, range.low <= axis.low && range.high >= axis.high ? null : range);
    });
    return input;
  };
  const both = (axis) =>
    element("fieldset", {}, element("legend", {}, axis.text), field(axis, "low"), " to ", field(axis, "high"));
  const fields = element("div", { class: "controls" }, ...axes.filter((axis) => axis.numeric).map(both));
  const details = element("details", { class: "ranges", open: rangesOpen }, element("summary", {}, "Ranges as numbers"), fields);
  details.addEventListener("toggle", () => { rangesOpen = details.open; });
  return details;
}
