// Test images that experiments answer differently, under the maps of the chosen ones.
function drawDisputed() {
  if (!data.images.length) return [paragraph("No test image is disputed, and none is explained.")];
  const [rows, left] = withDetail((row) => row.predicted);
  if (!rows.length) return [left || paragraph("Choose experiments in the leaderboard to see which images they dispute, and what they look at.")];
  const sets = new Set(rows.map((row) => row.set));
  const images = data.images.filter((image) => sets.has(image.set)).map((image) => ({ ...image, answers: answersTo(image, rows) }));
  if (!images.length) return [left, paragraph("There is no picture of their test images on this page.")];
  const apart = (image) => new Set(image.answers.map(({ predicted }) => predicted)).size > 1;
  images.sort((a, b) => apart(b) - apart(a));
  const count = images.filter(apart).length;
  const who = rows.length > 1 ? `The chosen experiments answer ${count} of these ${images.length} images differently; they come first. ` : "";
  const note = `${who}Red is where the evidence for the class is strongest.`;
  const list = element("ul", { class: "explained" }, ...images.map((image) => disputedImage(image, apart(image))));
  return [left, paragraph(note, { class: "small quiet" }), list];
}

/** What each of `rows` says of an image: class indices. */
function answersTo(image, rows) {
  const { classes } = data.sets.find(({ label }) => label === image.set);
  const same = rows.filter((row) => row.set === image.set);
  return same.map((row) => ({ row, classes, predicted: unpacked(row.predicted, classes)[image.row] }));
}

function disputedImage(image, apart) {
  const answers = image.answers.map((answer) => answerFigure(answer, image));
  const whether = apart ? "disputed" : image.disputed ? "disputed by others" : "";
  return element("li", {}, unexplained(image, whether), ...answers);
}

function unexplained({ id, label, original }, whether) {
  const caption = element(
    "figcaption",
    {},
    element("strong", {}, label),
    whether ? ` ${whether}` : null,
    element("br"),
    element("span", { class: "quiet" }, `image ${id}`),
  );
  if (!original) return element("figure", { class: "missing" }, element("div", {}, "no picture"), caption);
  const kind = original.pixelated ? "pixels" : undefined;
  return element("figure", {}, element("img", { src: original.uri, class: kind, alt: `Test image ${id}, a ${label}` }), caption);
}

function answerFigure({ row, classes, predicted }, image) {
  const overlay = image.overlays[row.index];
  const right = classes[predicted] === image.label;
  const said = element("span", { class: right ? "right" : "wrong" }, `${right ? "✓" : "✗"} ${classes[predicted]}`);
  const sure = overlay ? ` ${scoreText(overlay.confidence)}` : null;
  const other = overlay && overlay.target !== predicted ? `, map for ${classes[overlay.target]}` : null;
  const caption = element("figcaption", {}, nameTag(row), element("br"), said, sure, other);
  if (!overlay) return element("figure", { class: "missing" }, element("div", {}, "no map"), caption);
  const alt = `The same image under the map of ${row.name}: what speaks for ${classes[overlay.target]}`;
  return element("figure", {}, element("img", { src: overlay.uri, alt }), caption);
}
