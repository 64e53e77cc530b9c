// Axes and frames of the charts. The report draws its charts in Python; these answer to the reader.
const MARGIN = { left: 64, right: 18, top: 30, bottom: 46 };
const LOG_FACTOR = 30; // from this ratio of the largest to the smallest value an axis is logarithmic, as in the report

/** An axis around `values`, linear with round ends or logarithmic with powers of ten; place() is 0 at its low end. */
function axisAround(text, values, { within = [-Infinity, Infinity], mayBeLog = false } = {}) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (mayBeLog && low > 0 && high > LOG_FACTOR * low) return logAxis(text, low, high);
  if (high - low <= 1e-6 * Math.max(Math.abs(low), Math.abs(high))) {
    const room = 0.1 * (Math.abs(low) || 1);
    [low, high] = [low - room, high + room];
  }
  const step = roundStep((high - low) / 5);
  [low, high] = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
  [low, high] = [Math.max(low, within[0]), Math.min(high, within[1])];
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) ticks.push(n * step);
  return { text, low, high, ticks, place: (value) => (value - low) / (high - low), at: (share) => low + share * (high - low) };
}

function logAxis(text, least, greatest) {
  const [first, last] = [Math.floor(Math.log10(least) + 1e-9), Math.ceil(Math.log10(greatest) - 1e-9)];
  const [low, high, span] = [10 ** first, 10 ** last, last - first];
  const parts = span <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let decade = first; decade <= last; decade += 1) ticks.push(...parts.map((part) => part * 10 ** decade));
  const place = (value) => (Math.log10(value) - first) / span;
  const at = (share) => 10 ** (first + share * span);
  return { text, low, high, ticks: ticks.filter((tick) => tick <= high * 1.001), place, at };
}

function roundStep(width) {
  const decade = 10 ** Math.floor(Math.log10(width));
  return [1, 2, 2.5, 5, 10].map((part) => part * decade).find((step) => step >= width * (1 - 1e-9));
}

/** A drawing with a grid; `at` gives the pixel of a point, `area` takes what is clipped to the plot. */
function framed(x, y, width, height, label) {
  const [right, bottom] = [width - MARGIN.right, height - MARGIN.bottom];
  const at = (a, b) => [MARGIN.left + x.place(a) * (right - MARGIN.left), bottom - y.place(b) * (bottom - MARGIN.top)];
  const drawing = shape("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, width, height, role: "group", "aria-label": label });
  for (const tick of y.ticks) {
    const [, level] = at(x.low, tick);
    drawing.append(shape("line", { class: "grid", x1: MARGIN.left, x2: right, y1: level, y2: level }));
    drawing.append(shape("text", { class: "tick", x: MARGIN.left - 8, y: level + 4, "text-anchor": "end" }, tickText(tick)));
  }
  const room = Math.max(1, Math.ceil(x.ticks.length / ((right - MARGIN.left) / 52)));
  x.ticks.forEach((tick, n) => {
    const [across] = at(tick, y.low);
    drawing.append(shape("line", { class: "grid", x1: across, x2: across, y1: MARGIN.top, y2: bottom }));
    const place = { x: across, y: bottom + 18, "text-anchor": "middle" };
    if (n % room === 0) drawing.append(shape("text", { class: "tick", ...place }, tickText(tick)));
  });
  drawing.append(shape("text", { class: "name", x: (MARGIN.left + right) / 2, y: height - 6, "text-anchor": "middle" }, x.text));
  drawing.append(shape("text", { class: "name", x: 8, y: 16 }, y.text));
  const box = { x: MARGIN.left - 6, y: MARGIN.top - 6, width: right - MARGIN.left + 12, height: bottom - MARGIN.top + 12 };
  const area = shape("svg", { ...box, viewBox: `${box.x} ${box.y} ${box.width} ${box.height}` });
  drawing.append(area);
  return { drawing, area, at, right, bottom };
}

/** Texts beside points, each where nothing else is; where there is no room, the name is under the pointer only. */
function placeLabels(drawing, points, right) {
  const taken = points.map(({ x, y }) => [x - 7, y - 7, x + 7, y + 7]);
  for (const { x, y, text } of points.filter((point) => point.text)) {
    const width = 7 * text.length + 4;
    const places = [
      [x + 10, y + 4, "start"],
      [x - 10, y + 4, "end"],
      [x, y - 12, "middle"],
      [x, y + 20, "middle"],
      [x + 10, y - 10, "start"],
      [x + 10, y + 18, "start"],
    ];
    for (const [left, base, anchor] of places) {
      const start = anchor === "start" ? left : anchor === "end" ? left - width : left - width / 2;
      const box = [start, base - 11, start + width, base + 4];
      const inside = start >= MARGIN.left && start + width <= right + MARGIN.right;
      if (!inside || taken.some((other) => isOverlap(box, other))) continue;
      taken.push(box);
      drawing.append(shape("text", { class: "label", x: left, y: base, "text-anchor": anchor }, text));
      break;
    }
  }
}

/** Whether two boxes [left, top, right, bottom] share a point. */
function isOverlap(a, b) {
  return a[2] >= b[0] && a[0] <= b[2] && a[3] >= b[1] && a[1] <= b[3];
}

/** Enter and the space bar do what a click does. */
function onPress(act) {
  return {
    onclick: act,
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      act();
    },
  };
}
