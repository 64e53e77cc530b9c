// The same test image under the maps of the chosen experiments.
function drawGradcam() {
  if (!data.images.length) return [paragraph("There is no explained image on this page.")];
  const chosen = state.chosen.map((index) => allRows[index]);
  if (!chosen.length) return [paragraph("Choose experiments in the leaderboard to see what they look at.")];
  const sets = new Set(chosen.map((row) => row.set));
  const having = (image) => chosen.filter((row) => image.overlays[row.index]).length;
  const images = data.images.filter((image) => sets.has(image.set) && having(image)).sort((a, b) => having(b) - having(a));
  if (!images.length) return [paragraph("None of the chosen has explained these images: not every network has a map to show.")];
  const note =
    "Red is where the evidence for the class is strongest. Images that most experiments have explained come first; " +
    "which images an experiment explains depends on its predictions.";
  const list = element("ul", { class: "explained" }, ...images.map((image) => explainedImage(image, chosen)));
  return [paragraph(note, { class: "small quiet" }), list];
}

function explainedImage(image, chosen) {
  const { classes } = data.sets.find(({ label }) => label === image.set);
  const overlays = chosen.filter((row) => row.set === image.set).map((row) => explainedBy(row, image, classes));
  return element("li", {}, image.original ? unexplained(image) : null, ...overlays);
}

function unexplained({ id, label, original }) {
  const kind = original.pixelated ? "pixels" : undefined;
  const name = element("span", { class: "quiet" }, `image ${id}`);
  const caption = element("figcaption", {}, element("strong", {}, label), element("br"), name);
  return element("figure", {}, element("img", { src: original.uri, class: kind, alt: `Test image ${id}, a ${label}` }), caption);
}

function explainedBy(row, image, classes) {
  const overlay = image.overlays[row.index];
  if (!overlay) {
    const caption = element("figcaption", {}, nameTag(row));
    return element("figure", { class: "missing" }, element("div", {}, "not explained"), caption);
  }
  const [predicted, target] = [classes[overlay.predicted], classes[overlay.target]];
  const said = overlay.right ? ["right", `✓ ${predicted}`] : ["wrong", `✗ ${predicted}`];
  const rest = ` ${scoreText(overlay.confidence)}${target === predicted ? "" : `, shown: ${target}`}`;
  const caption = element("figcaption", {}, nameTag(row), element("br"), element("span", { class: said[0] }, said[1]), rest);
  const alt = `The same image under the map of ${row.name}: what speaks for ${target}`;
  return element("figure", {}, element("img", { src: overlay.uri, alt }), caption);
}
