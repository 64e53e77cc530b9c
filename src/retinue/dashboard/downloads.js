// All that is known in numbers, in full, as CSV and as JSON.
function prepareDownloads() {
  const offers = [
    ["CSV", "experiments.csv", "text/csv", () => csvText()],
    ["JSON", "experiments.json", "application/json", () => JSON.stringify(records(), null, 2)],
  ];
  const place = document.getElementById("downloads");
  for (const [text, name, type, make] of offers) {
    const button = element("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      const address = URL.createObjectURL(new Blob([make()], { type }));
      element("a", { href: address, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(address), 1000);
    });
    place.append(" ", button);
  }
}

/** Every experiment with all that is known of it in numbers, in full. */
function records() {
  return allRows.map((row) => ({
    name: row.name,
    kind: row.kind,
    test_images: row.set,
    revision: row.revision,
    committed: row.committed,
    duration_s: row.duration_s,
    metrics: row.metrics,
    intervals: row.intervals,
    cost: row.cost,
    settings: { ...data.common, ...row.settings },
    standings: row.standings,
  }));
}

function csvText() {
  const flat = records().map(({ metrics, intervals, cost, settings, standings, ...rest }) => {
    const line = { ...rest, ...metrics };
    for (const [name, ends] of Object.entries(intervals)) [line[`${name}.low`], line[`${name}.high`]] = ends;
    for (const [name, standing] of Object.entries(standings)) line[`${name}.corrected_p`] = standing.corrected;
    Object.assign(line, cost);
    for (const { name } of data.changed) line[name] = settings[name];
    return line;
  });
  const columns = [...new Set(flat.flatMap(Object.keys))];
  const quoted = (value) => {
    const text = value === undefined || value === null ? "" : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [columns, ...flat.map((line) => columns.map((column) => line[column]))];
  return lines.map((line) => `${line.map(quoted).join(",")}\n`).join("");
}
