const at = (id) => document.getElementById(id);
let last = null; // the image that was given last
let turn = 0; // answers of an earlier image come too late

/** Sends an image, and gives the JSON of the answer; throws what the service says is wrong. */
async function ask(route, file) {
  const headers = { Accept: "application/json", "Content-Type": file.type.startsWith("image/") ? file.type : "application/octet-stream" };
  if (at("key").value) headers.Authorization = `Bearer ${at("key").value}`;
  let response;
  try {
    response = await fetch(route, { method: "POST", headers, body: file });
  } catch (error) {
    throw new Error("The service does not answer.");
  }
  const answer = await response.json().catch(() => ({ error: `The service answers with status ${response.status}.` }));
  if (response.status === 401) at("key-field").hidden = false;
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

function tell(problem, state) {
  at("problem").textContent = problem;
  at("state").textContent = state;
}

/** A row for each class, the most probable first. */
function showProbs(found) {
  const rows = Object.entries(found.probs).sort((a, b) => b[1] - a[1]).map(([name, share]) => {
    const row = document.createElement("tr");
    const [head, number, drawn, bar] = ["th", "td", "td", "span"].map((tag) => document.createElement(tag));
    head.scope = "row";
    head.textContent = name;
    number.className = "number";
    number.textContent = scoreText(share);
    bar.className = "bar";
    bar.style.width = `${100 * share}%`;
    bar.setAttribute("aria-hidden", "true");
    drawn.className = "share"; // a cell of prose would be wider than a phone
    drawn.append(bar);
    row.append(head, number, drawn);
    if (name === found.predicted) row.className = "decided";
    return row;
  });
  at("probs").replaceChildren(...rows);
}

async function classify(file) {
  last = file;
  const mine = (turn += 1);
  tell("", "The model looks at the image …");
  at("result").hidden = at("map-figure").hidden = true;
  if (at("similar")) at("similar").hidden = true;
  let found;
  try {
    [found] = (await ask("predict", file)).images;
  } catch (error) {
    if (mine === turn) tell(error.message, "");
    return;
  }
  if (mine !== turn) return;
  at("key-field").hidden = true;
  URL.revokeObjectURL(at("image").src);
  at("image").src = URL.createObjectURL(file);
  at("decision").textContent = `${found.predicted}, probability ${scoreText(found.probability)}`;
  at("abstained").hidden = !found.abstained;
  at("unusual").hidden = found.usual_share === null || found.usual_share > 0.05;
  at("usual-share").textContent = scoreText(found.usual_share);
  showProbs(found);
  at("result").hidden = false;
  at("decision").focus();
  tell("", "The model looks for the evidence …");
  let said = "Done.";
  try {
    const explained = await ask("explain", file);
    if (mine !== turn) return;
    at("map").src = `data:image/png;base64,${explained.overlay}`;
    at("map").alt = `The image under the map of the evidence for ${explained.predicted}`;
    at("map-figure").hidden = false;
  } catch (error) {
    said = error.status === 501 ? "This network has no map." : `No map: ${error.message}`;
  }
  try {
    if (at("similar")) await showSimilar(file, mine);
  } catch (error) {
    said = `No similar images: ${error.message}`;
  }
  if (mine === turn) tell("", said);
}

async function showSimilar(file, mine) {
  const { similar } = await ask("similar?k=6", file);
  if (mine !== turn) return;
  at("similar-images").replaceChildren(...similar.map(nearImage));
  at("similar").hidden = false;
}

/** A training image with its class and distance. */
function nearImage(near) {
  const [item, figure, image, caption] = ["li", "figure", "img", "figcaption"].map((tag) => document.createElement(tag));
  image.src = `data:image/png;base64,${near.picture}`;
  image.alt = `A training image of class ${near.label}`;
  caption.textContent = `${near.label}, distance ${scoreText(near.distance)}`;
  figure.append(image, caption);
  item.append(figure);
  return item;
}

for (const id of ["file", "camera"]) {
  at(id).addEventListener("click", () => {
    at(id).value = ""; // a file that is chosen again is looked at again
  });
  at(id).addEventListener("change", () => {
    if (at(id).files.length) classify(at(id).files[0]);
  });
}
at("key-field").addEventListener("submit", (event) => {
  event.preventDefault();
  if (last) classify(last);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault(); // a browser would leave the page and show the image
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) classify(event.dataTransfer.files[0]);
  });
}
