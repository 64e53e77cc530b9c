// Confusion matrices of the chosen experiments side by side; of many classes, the most frequent confusions.
const MOST_CLASSES = 20; // of a matrix that can still stand beside another
const MOST_CONFUSIONS = 15;

function drawConfusion() {
  const [rows, left] = withDetail((row) => row.predicted);
  if (!rows.length) return [left || paragraph("Choose experiments in the leaderboard to see which classes they confuse.")];
  const note = "Rows are labels, columns predictions; shading is the share of the row.";
  const tables = rows.map((row) => confusionOf(row));
  return [left, element("div", { class: "matrices" }, ...tables), paragraph(note, { class: "quiet small" })];
}

function confusionOf(row) {
  const { classes, counts } = countsOf(row);
  const wrong = counts.reduce((sum, line, i) => sum + line.reduce((all, n, j) => all + (i === j ? 0 : n), 0), 0);
  const caption = `${row.name}: ${countText(wrong)} wrong`;
  const body = classes.length <= MOST_CLASSES ? matrix(caption, classes, counts) : frequentConfusions(caption, classes, counts);
  return element("div", {}, element("h3", { class: "versus" }, nameTag(row)), body);
}

/** How many images of each class are given each answer; a row is a class. */
function countsOf(row) {
  const { classes, labels: packed } = data.sets.find(({ label }) => label === row.set);
  const [labels, predicted] = [packed, row.predicted].map((text) => unpacked(text, classes));
  const counts = classes.map(() => new Array(classes.length).fill(0));
  labels.forEach((label, n) => (counts[label][predicted[n]] += 1));
  return { classes, counts };
}

function matrix(caption, classes, counts) {
  const upright = classes.length > 4 && Math.max(...classes.map((name) => name.length)) > 4;
  const head = (name) => element("th", { scope: "col" }, element("span", {}, name));
  const heads = element("tr", {}, element("th", { scope: "col" }, "label"), ...classes.map(head));
  const cell = (count, i, j, sum) =>
    element("td", { class: i === j ? "diagonal" : count ? "off" : "zero", style: `--share:${(count / Math.max(1, sum)).toFixed(3)}` }, countText(count));
  const line = (name, i) => {
    const sum = counts[i].reduce((all, count) => all + count, 0);
    return element("tr", {}, element("th", { scope: "row" }, name), ...counts[i].map((count, j) => cell(count, i, j, sum)));
  };
  const kind = { class: upright ? "confusion upright" : "confusion" };
  const table = element("table", kind, element("caption", {}, caption), element("thead", {}, heads), element("tbody", {}, ...classes.map(line)));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Confusion matrix of ${caption}` }, table);
}

function frequentConfusions(caption, classes, counts) {
  const pairs = counts.flatMap((line, i) => line.map((count, j) => [count, i, j])).filter(([count, i, j]) => count && i !== j);
  const lines = pairs.sort(([a], [b]) => b - a).slice(0, MOST_CONFUSIONS).map(([count, i, j]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, classes[i]),
      element("td", {}, classes[j]),
      element("td", { class: "number" }, countText(count)),
    ),
  );
  return tableOf(caption, ["class", "taken for", "images"], lines, undefined);
}
