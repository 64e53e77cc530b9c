// Two chosen experiments: what differs in the settings, by how much the scores differ, and which images tell them apart.
const MAX_LISTED = 100;

function drawCompare() {
  if (state.chosen.length !== 2) {
    const now = state.chosen.length ? `${state.chosen.length} ${state.chosen.length === 1 ? "is" : "are"} chosen.` : "None is chosen.";
    return [paragraph(`Choose two experiments in the leaderboard to compare them here. ${now}`)];
  }
  const [a, b] = state.chosen.map((index) => allRows[index]);
  const heading = element("h3", { class: "versus" }, nameTag(a), " against ", nameTag(b));
  const differences = a.set === b.set ? differenceOf(a.index, b.index) : undefined;
  const sides = element("div", { class: "beside" }, scoreTable(a, b, differences), settingsTable(a, b));
  return [heading, sentence(a, b, differences), sides, ...disagreements(a, b)];
}

function nameTag(row) {
  return element("span", { class: `nametag ${seriesOf(row.index)}` }, element("span", { class: "swatch" }), row.name);
}

function sentence(a, b, differences) {
  const place = { class: "lede", id: "difference" };
  if (a.set !== b.set) {
    const scored = `${a.name} was scored on test images ${a.set}, ${b.name} on test images ${b.set}`;
    return paragraph(`They are not comparable: ${scored}.`, place);
  }
  const page = `The page has the details of ${data.details} experiments; \`retinue dashboard ${a.name} ${b.name}\` makes one of these two.`;
  if (!a.detailed || !b.detailed) return paragraph(`They were not compared with each other. ${page}`, place);
  if (!differences) return paragraph("They were not compared: the predictions of one cannot be read; see the notes.", place);
  const { value, low, high, p } = differences.accuracy_score;
  const apart = p <= 1 - data.level + 1e-12;
  const words = apart ? `${value > 0 ? a.name : b.name} is better, beyond chance` : "they cannot be told apart";
  const gap = (number) => differenceText(number, "score");
  const numbers = `: the difference is ${gap(value)} (${gap(low)} to ${gap(high)}), p ${pText(p)}.`;
  return element("p", place, "By accuracy ", element("strong", {}, words), numbers);
}

function scoreTable(a, b, differences) {
  const lines = [...data.metrics, ...data.costs].filter(({ name }) => [a, b].some((row) => valueOf(row, name) !== undefined));
  const body = lines.map(({ name, text, kind }) => {
    const [left, right] = [valueOf(a, name), valueOf(b, name)];
    const difference = differences?.[name];
    const isCounted = metricNamed.has(name) && !metricNamed.get(name).better;
    const plain = a.set === b.set && !isCounted && left !== undefined && right !== undefined ? left - right : undefined;
    const shown = difference?.value ?? plain;
    const full = difference ? `${difference.low} to ${difference.high}` : "";
    const interval = difference ? `${differenceText(difference.low, kind)} to ${differenceText(difference.high, kind)}` : "";
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, text),
      numberCell(left, kind),
      numberCell(right, kind),
      element("td", { class: "number", title: shown ?? "" }, shown === undefined ? MISSING : differenceText(shown, kind)),
      element("td", { class: "number", title: full }, interval),
      element("td", { class: "number", title: difference?.p ?? "" }, difference ? pText(difference.p) : ""),
    );
  });
  return tableOf("Scores and costs", ["", a.name, b.name, "difference", `${data.level_text} interval`, "p, paired"], body, "scores");
}

function numberCell(value, kind) {
  return element("td", { class: "number", title: value ?? "" }, TEXTS[kind](value));
}

function settingsTable(a, b) {
  const keys = [...new Set([...Object.keys(a.settings), ...Object.keys(b.settings)])].filter((key) => a.settings[key] !== b.settings[key]);
  if (!keys.length) return paragraph("All settings are the same.");
  const value = (row, key) => element("td", {}, element("code", {}, row.settings[key] ?? MISSING));
  const head = (key) => element("th", { scope: "row" }, element("code", {}, key));
  const body = keys.map((key) => element("tr", {}, head(key), value(a, key), value(b, key)));
  return tableOf("Settings that differ", ["", a.name, b.name], body, "settings-difference");
}

function tableOf(caption, columns, body, id) {
  const kind = (n) => (n && id === "scores" ? "number" : undefined);
  const headings = columns.map((text, n) => element("th", { scope: "col", class: kind(n) }, text));
  const head = element("thead", {}, element("tr", {}, ...headings));
  const table = element("table", { id }, element("caption", {}, caption), head, element("tbody", {}, ...body));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, table);
}

/** The images that one of the two alone gets right. */
function disagreements(a, b) {
  const set = data.sets.find(({ label }) => label === a.set);
  if (a.set !== b.set || !a.predicted || !b.predicted) return [];
  const [labels, ofA, ofB] = [set.labels, a.predicted, b.predicted].map((text) => unpacked(text, set.classes));
  const only = (mine, theirs) => set.images.map((_, n) => n).filter((n) => mine[n] === labels[n] && theirs[n] !== labels[n]);
  const list = (row, found, wrong, other) => {
    const line = (n) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, set.images[n]),
        element("td", {}, set.classes[labels[n]]),
        element("td", { class: "wrong" }, set.classes[wrong[n]]),
      );
    const lines = found.slice(0, MAX_LISTED).map(line);
    const more = found.length - MAX_LISTED;
    const rest = more > 0 ? paragraph(`${more} more are not listed.`, { class: "quiet small" }) : null;
    const caption = `Only ${row.name} gets right: ${found.length} of ${set.images.length}`;
    if (!found.length) return paragraph(`${caption}.`);
    return element("div", {}, tableOf(caption, ["image", "class", `${other.name} says`], lines, `only-${row.index}`), rest);
  };
  return [element("div", { class: "beside" }, list(a, only(ofA, ofB), ofB, b), list(b, only(ofB, ofA), ofA, a))];
}
