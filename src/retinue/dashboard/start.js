// Begins with the leader and the next best of the first set of test images chosen, so that there is something to see.
if (allRows.length) {
  prepareTables();
  prepareControls();
  prepareDownloads();
  interactive("cost", drawCost);
  interactive("settings", drawParallel);
  interactive("compare", drawCompare);
  interactive("roc", drawRoc);
  interactive("gradcam", drawGradcam);
  const best = rowsOfSet().sort((a, b) => b.metrics.accuracy_score - a.metrics.accuracy_score);
  change({ chosen: best.slice(0, 2).map((row) => row.index) });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
