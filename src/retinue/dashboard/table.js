// The leaderboard: sorted by a click on a heading, filtered by the controls above, rows chosen by their boxes.
const MOST_ROWS = 200; // seen at once; a browser lays out a thousand in seconds, and nobody reads them
const layout = { all: false, idle: "" };

function prepareTables() {
  for (const heading of document.querySelectorAll("table.leaderboard thead tr:last-child th")) {
    const button = element("button", { type: "button" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sortByColumn(heading));
  }
  const experiments = document.querySelector("#experiments table");
  const [groups, headings] = experiments.tHead.rows;
  groups.prepend(element("td", { class: "choose" }));
  headings.prepend(element("td", { class: "choose" }, element("span", { class: "hidden" }, "choose")));
  for (const row of experiments.tBodies[0].rows) {
    const index = Number(row.dataset.row);
    const box = element("input", { type: "checkbox", "aria-label": `Choose ${allRows[index].name}` });
    box.addEventListener("change", () => toggleChosen(index));
    row.prepend(element("td", { class: "choose" }, box));
  }
  sortByColumn(experiments.querySelector('th[data-key="accuracy_score"]'));
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
  showVisible();
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
  document.getElementById("all-rows").addEventListener("click", () => {
    layout.all = !layout.all;
    showVisible();
  });
  listeners.push(showColumns, showVisible, showTray);
}

function showVisible() {
  const visible = new Set(visibleRows().map((row) => row.index));
  let room = layout.all ? Infinity : MOST_ROWS;
  for (const row of document.querySelector("#experiments tbody").rows) {
    const index = Number(row.dataset.row);
    row.hidden = !visible.has(index) || room <= 0;
    room -= row.hidden ? 0 : 1;
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
  const begun = !layout.all && visible.size > MOST_ROWS ? `, the first ${MOST_ROWS} in the table` : "";
  document.getElementById("count").textContent = `${visible.size} of ${rowsOfSet().length}${which} shown${begun}`;
  const all = document.getElementById("all-rows");
  all.hidden = visible.size <= MOST_ROWS;
  all.textContent = layout.all ? `Show the first ${MOST_ROWS}` : `Show all ${visible.size}`;
}

/** Settings that are the same in the whole set take no room, nor does the set's own name. */
function showColumns() {
  const isIdle = ({ name }) => new Set(rowsOfSet().map((row) => valueOf(row, name))).size < 2;
  const idle = new Set(data.changed.filter(isIdle).map(({ name }) => name));
  if (state.set) idle.add("set");
  const idleNow = [...idle].sort().join(" ");
  if (idleNow !== layout.idle) hideColumns(idle);
  layout.idle = idleNow;
  for (const list of document.querySelectorAll("[data-filter]")) list.parentElement.hidden = idle.has(list.dataset.filter) && !list.value;
}

/** Hides the columns `idle`; what stands above them in the head spans those that are left. */
function hideColumns(idle) {
  const { tHead, tBodies } = document.querySelector("#experiments table");
  const [groups, headings] = tHead.rows;
  const changed = [...headings.cells].filter((cell) => cell.dataset.key && cell.hidden !== idle.has(cell.dataset.key));
  for (const cell of changed) cell.hidden = !cell.hidden;
  for (const row of tBodies[0].rows) for (const { cellIndex, hidden } of changed) row.cells[cellIndex].hidden = hidden;
  let first = 0;
  for (const group of groups.cells) {
    group.dataset.span ??= String(group.colSpan);
    const members = [...headings.cells].slice(first, first + Number(group.dataset.span));
    first += members.length;
    const left = members.filter((cell) => !cell.hidden).length;
    group.hidden = left === 0;
    group.colSpan = Math.max(1, left);
  }
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
