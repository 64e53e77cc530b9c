// Begins with the leader and the next best other network of the first set of test images chosen: something to see.
if (allRows.length) {
  prepareTables();
  prepareControls();
  prepareDownloads();
  interactive("cost", drawCost);
  interactive("settings", drawParallel);
  interactive("compare", drawCompare);
  interactive("confusion", drawConfusion);
  interactive("learning", drawLearning);
  interactive("roc", drawRoc);
  interactive("disputed", drawDisputed);
  const [first, ...others] = rowsOfSet().sort((a, b) => b.metrics.accuracy_score - a.metrics.accuracy_score);
  const second = others.find((row) => row.metrics.log_loss !== first.metrics.log_loss) || others[0]; // not a copy of the first
  change({ chosen: [first, second].filter(Boolean).map((row) => row.index) });
}
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
