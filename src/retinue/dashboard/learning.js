// Learning curves of the chosen experiments over each other, a chart per loss and score.
function drawLearning(place) {
  const [rows, left] = withDetail((row) => row.learning);
  if (!rows.length) return [left || paragraph("Choose experiments in the leaderboard to see how their training went.")];
  const room = place.clientWidth - 32;
  const width = Math.max(290, Math.min(room < 700 ? room : (room - 24) / 2, 560));
  const drawings = data.learning.map((curve) => learningDrawing(rows, curve, width)).filter(Boolean);
  const item = (row) => element("li", { class: seriesOf(row.index) }, element("span", { class: "swatch" }), bestEpoch(row));
  const note = paragraph("The ring is the epoch whose weights were kept.", { class: "quiet small" });
  const caption = element("figcaption", {}, element("ul", { class: "legend" }, ...rows.map(item)), note);
  return [left, element("figure", { class: "card" }, element("div", { class: "plots" }, ...drawings), caption)];
}

function bestEpoch({ name, learning }) {
  return `${name}: epoch ${learning.best} of ${learning.epochs.at(-1)}`;
}

function learningDrawing(rows, { name, text }, width) {
  const pointsOf = ({ learning }) => learning.epochs.map((epoch, n) => [epoch, learning[name][n]]).filter(([, value]) => value !== null);
  const values = rows.flatMap((row) => pointsOf(row).map(([, value]) => value));
  if (!values.length) return null;
  const isScore = name.endsWith("_score");
  const x = axisAround("epoch", [1, ...rows.map((row) => row.learning.epochs.at(-1))]);
  const y = axisAround(text, values, { mayBeLog: !isScore, within: isScore ? [0, 1] : [0, Infinity] });
  const { drawing, area, at } = framed(x, y, width, 250, `${text} of ${rows.map((row) => row.name).join(", ")}`);
  for (const row of rows) {
    const points = pointsOf(row).map(([epoch, value]) => at(epoch, value));
    const line = points.map((point) => point.map((pixel) => pixel.toFixed(1)).join(",")).join(" ");
    area.append(shape("polyline", { class: `curve ${seriesOf(row.index)}`, points: line }, shape("title", {}, row.name)));
    const kept = row.learning.epochs.indexOf(row.learning.best);
    if (row.learning[name][kept] === null) continue;
    const [cx, cy] = at(row.learning.best, row.learning[name][kept]);
    area.append(shape("circle", { class: `ring ${seriesOf(row.index)}`, cx, cy, r: 5 }));
  }
  return drawing;
}
