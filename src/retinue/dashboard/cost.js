// A score against what it costs, with the front of those that nothing beats in both directions.
function drawCost(place) {
  const metric = metricNamed.get(state.metric);
  const cost = data.costs.find(({ name }) => name === state.cost);
  const scores = data.metrics.filter(({ better }) => better);
  const controls = element(
    "div",
    { class: "controls" },
    select("Score", scores, state.metric, (value) => change({ metric: value })),
    select("Cost", data.costs, state.cost, (value) => change({ cost: value })),
  );
  const rows = visibleRows().filter((row) => row.metrics[metric.name] !== undefined && row.cost[cost.name] !== undefined);
  const which = "Scores on different test images are not comparable: choose one set of test images in the leaderboard.";
  if (!state.set) return [controls, paragraph(which)];
  if (!rows.length) return [controls, paragraph("No experiment shown has both.")];
  const front = paretoFront(rows, cost.name, metric);
  const names = element("span", { id: "front" }, front.map((row) => row.name).join(", "));
  const caption = element("figcaption", { class: "small" }, element("strong", {}, "Pareto front: "), names);
  return [controls, element("figure", { class: "card" }, scatter(place, rows, front, cost, metric), caption)];
}

/** The rows that no other row is at least as good as in both and better in one, cheapest first. */
function paretoFront(rows, cost, metric) {
  const sense = metric.better === "lower" ? -1 : 1;
  const better = (a, b) => {
    const [cheaper, higher] = [b.cost[cost] - a.cost[cost], sense * (a.metrics[metric.name] - b.metrics[metric.name])];
    return cheaper >= 0 && higher >= 0 && (cheaper > 0 || higher > 0);
  };
  return rows.filter((row) => !rows.some((other) => better(other, row))).sort((a, b) => a.cost[cost] - b.cost[cost]);
}

function scatter(place, rows, front, cost, metric) {
  const width = Math.max(320, place.clientWidth - 32);
  const bound = metric.better === "higher" ? [0, 1] : [0, Infinity];
  const ends = rows.flatMap((row) => row.intervals[metric.name] || []);
  const x = axisAround(cost.text, rows.map((row) => row.cost[cost.name]), { mayBeLog: true, within: [0, Infinity] });
  const y = axisAround(metric.text, [...rows.map((row) => row.metrics[metric.name]), ...ends], { within: bound });
  const label = `${metric.text} against ${cost.text}, ${rows.length} experiments`;
  const { drawing, area, at, right } = framed(x, y, width, Math.min(460, 260 + width / 5), label);
  const steps = front.flatMap((row, n) => {
    const point = at(row.cost[cost.name], row.metrics[metric.name]);
    return n ? [[point[0], at(x.low, front[n - 1].metrics[metric.name])[1]], point] : [point];
  });
  area.append(shape("polyline", { class: "front", points: steps.map((point) => point.join(",")).join(" ") }));
  const points = rows.map((row) => {
    const [px, py] = at(row.cost[cost.name], row.metrics[metric.name]);
    if (row.intervals[metric.name]) {
      const [low, high] = row.intervals[metric.name].map((end) => at(x.low, end)[1]);
      area.append(shape("line", { class: "whisker", x1: px, x2: px, y1: low, y2: high }));
    }
    return { row, x: px, y: py, onFront: front.includes(row) };
  });
  for (const point of points) area.append(scatterPoint(point, cost, metric));
  const named = (point) => point.onFront || state.chosen.includes(point.row.index) || points.length <= 14;
  const labelled = points.map((point) => ({ ...point, text: named(point) ? point.row.name : "" }));
  placeLabels(drawing, labelled.sort((a, b) => b.onFront - a.onFront), right);
  return drawing;
}

function scatterPoint({ row, x, y, onFront }, cost, metric) {
  const chosen = state.chosen.includes(row.index);
  const values = `${metric.text} ${row.metrics[metric.name]}, ${cost.text} ${row.cost[cost.name]}`;
  const text = `${row.name}: ${values}${onFront ? ", on the Pareto front" : ""}`;
  const style = ["point", onFront && "on-front", chosen && seriesOf(row.index)].filter(Boolean).join(" ");
  const said = { role: "checkbox", "aria-checked": String(chosen), "aria-label": text, tabindex: 0 };
  const place = { class: style, cx: x, cy: y, r: chosen ? 7 : 5.5 };
  return shape("circle", { ...place, ...said, ...onPress(() => toggleChosen(row.index)) }, shape("title", {}, text));
}
