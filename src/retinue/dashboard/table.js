// The leaderboard: sorted by a click on a heading, filtered by the controls above, rows chosen by their boxes.
function prepareTables() {
  for (const heading of document.querySelectorAll("table.leaderboard thead th")) {
    const button = element("button", { type: "button" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortByColumn(heading));
  }
  const table = document.querySelector("#experiments table");
  table.tHead.rows[0].prepend(element("td", { class: "choose" }, element("span", { class: "hidden" }, "choose")));
  for (const row of table.tBodies[0].rows) {
    const index = Number(row.dataset.row);
    const box = element("input", { type: "checkbox", "aria-label": `Choose ${allRows[index].name}` });
    box.addEventListener("change", () => toggleChosen(index));
    row.prepend(element("td", { class: "choose" }, box));
  }
  sortByColumn(table.querySelector('th[data-key="accuracy_score"]'));
}

function sortByColumn(heading) {
  const body = heading.closest("table").tBodies[0];
  const falling = heading.classList.contains("number") && !("lower" in heading.dataset);
  const [first, other] = falling ? ["descending", "ascending"] : ["ascending", "descending"];
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const cell of heading.parentElement.cells) cell.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  const keyed = [...body.rows].map((row) => [row, row.cells[heading.cellIndex].dataset.value]);
  const numeric = keyed.every(([, value]) => value === "" || !Number.isNaN(Number(value)));
  const sense = order === "ascending" ? 1 : -1;
  keyed.sort(([, a], [, b]) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what is missing stays last
    return sense * (numeric ? Number(a) - Number(b) : a.localeCompare(b, "en", { numeric: true }));
  });
  body.append(...keyed.map(([row]) => row));
}

function prepareControls() {
  for (const hidden of document.querySelectorAll(".controls, #filter-help, #count")) hidden.hidden = false;
  const form = document.querySelector(".controls");
  form.addEventListener("submit", (event) => event.preventDefault());
  const text = document.getElementById("text");
  text.addEventListener("input", () => change({ text: text.value }));
  for (const list of form.querySelectorAll("[data-filter]")) {
    list.addEventListener("change", () => change({ filters: { ...state.filters, [list.dataset.filter]: list.value } }));
  }
  const set = document.getElementById("set");
  if (set) set.addEventListener("change", () => change({ set: set.value, ranges: {} }));
  const grouped = document.getElementById("group-seeds");
  const seeds = document.getElementById("seeds");
  if (seeds) {
    seeds.hidden = true;
    grouped.addEventListener("change", () => {
      seeds.hidden = !grouped.checked;
      document.getElementById("experiments").hidden = grouped.checked;
    });
  }
  document.getElementById("clear").addEventListener("click", () => {
    text.value = "";
    for (const list of form.querySelectorAll("[data-filter]")) list.value = "";
    change({ text: "", filters: {}, ranges: {} });
  });
  listeners.push(showColumns, showVisible, showTray);
}

function showVisible() {
  const visible = new Set(visibleRows().map((row) => row.index));
  for (const row of document.querySelector("#experiments tbody").rows) {
    const index = Number(row.dataset.row);
    row.hidden = !visible.has(index);
    const chosen = state.chosen.includes(index);
    row.className = chosen ? `chosen ${seriesOf(index)}` : "";
    row.querySelector("input").checked = chosen;
  }
  for (const row of document.querySelectorAll("#seeds tbody tr")) {
    row.hidden = !row.dataset.members.split(" ").some((index) => visible.has(Number(index)));
  }
  for (const verdict of document.querySelectorAll(".verdict")) {
    verdict.hidden = Boolean(state.set) && verdict.dataset.set !== state.set;
  }
  const which = state.set && data.sets.length > 1 ? ` scored on test images ${state.set}` : "";
  document.getElementById("count").textContent = `${visible.size} of ${rowsOfSet().length}${which} shown`;
}

/** Settings that are the same in the whole set take no room, nor does the set's own name. */
function showColumns() {
  const isIdle = ({ name }) => new Set(rowsOfSet().map((row) => valueOf(row, name))).size < 2;
  const idle = new Set(data.changed.filter(isIdle).map(({ name }) => name));
  if (state.set) idle.add("set");
  const headings = document.querySelectorAll("#experiments thead th");
  for (const heading of headings) {
    heading.hidden = idle.has(heading.dataset.key);
    for (const row of document.querySelector("#experiments tbody").rows) row.cells[heading.cellIndex].hidden = heading.hidden;
  }
  for (const list of document.querySelectorAll("[data-filter]")) list.parentElement.hidden = idle.has(list.dataset.filter) && !list.value;
}

function showTray() {
  const tray = document.getElementById("tray");
  tray.hidden = !state.chosen.length;
  const items = state.chosen.map((index) =>
    element(
      "li",
      { class: seriesOf(index) },
      element("span", { class: "swatch" }),
      element("span", { class: "name" }, allRows[index].name),
      element("button", { type: "button", "aria-label": `Remove ${allRows[index].name}`, onclick: () => toggleChosen(index) }, "×"),
    ),
  );
  tray.replaceChildren(
    element("ul", {}, ...items),
    element("a", { href: "#compare" }, state.chosen.length === 2 ? "Compare" : "Choose two to compare"),
    element("button", { type: "button", onclick: () => change({ chosen: [] }) }, "Clear"),
  );
}

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
