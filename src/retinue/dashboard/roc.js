// ROC curves of the chosen experiments over each other.
const CORNER_FROM = 0.9; // from this AUC of one of them the corner is drawn enlarged, too
const view = { curve: "" };

function drawRoc(place) {
  const [rows, left] = withDetail((row) => Object.keys(row.curves).length);
  if (!rows.length) return [left || paragraph("Choose experiments in the leaderboard to see their curves over each other.")];
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.curves)))].sort((a, b) => rankOfCurve(a) - rankOfCurve(b));
  const curve = names.includes(view.curve) ? view.curve : names[0];
  const choose = (value) => {
    view.curve = value;
    change({});
  };
  const choices = names.map((name) => ({ name, text: curveText(name) }));
  const controls = names.length > 1 ? element("div", { class: "controls" }, select("Curve", choices, curve, choose)) : null;
  const sets = new Set(rows.map((row) => row.set));
  const words = element("strong", {}, "The curves are of different test images and are not comparable.");
  const warning = sets.size > 1 ? element("p", {}, words) : null;
  return [left, controls, warning, rocFigure(place, rows.filter((row) => curve in row.curves), curve)];
}

function rankOfCurve(name) {
  return name === "macro" ? -2 : name === "micro" ? -1 : 0;
}

function curveText(name) {
  return { macro: "macro: mean over the classes", micro: "micro: all classes pooled" }[name] || name;
}

function rocFigure(place, rows, curve) {
  const room = place.clientWidth - 32;
  const side = Math.max(290, Math.min(room < 700 ? room : (room - 24) / 2, 520));
  const regions = rows.some((row) => row.metrics.auc_score >= CORNER_FROM) ? [[0, 1], [0.9, 1]] : [[0, 1]];
  const drawings = regions.map(([low, high]) => rocDrawing(rows, curve, side, [low, high]));
  const entry = (row) => `${row.name}, AUC ${scoreText(row.metrics.auc_score)}`;
  const item = (row) => element("li", { class: seriesOf(row.index) }, element("span", { class: "swatch" }), entry(row));
  const corner = regions.length > 1 ? "Last, the upper left corner ten times enlarged. " : "";
  const note = paragraph(`${corner}The dotted diagonal is chance.`, { class: "quiet small" });
  const caption = element("figcaption", {}, element("ul", { class: "legend" }, ...rows.map(item)), note);
  return element("figure", { class: "card" }, element("div", { class: "plots" }, ...drawings), caption);
}

function rocDrawing(rows, curve, side, [low, high]) {
  const x = axisAround("false positive rate", [0, high - low]);
  const y = axisAround("true positive rate", [low, high]);
  const { drawing, area, at } = framed(x, y, side, side, `ROC of ${rows.map((row) => row.name).join(", ")}`);
  const points = (xs, ys) => xs.map((value, n) => at(value, ys[n]).map((pixel) => pixel.toFixed(1)).join(",")).join(" ");
  if (low === 0) area.append(shape("polyline", { class: "reference", points: points([0, 1], [0, 1]) }));
  for (const row of rows) {
    const line = { class: `curve ${seriesOf(row.index)}`, points: points(...row.curves[curve]) };
    area.append(shape("polyline", line, shape("title", {}, row.name)));
  }
  return drawing;
}
