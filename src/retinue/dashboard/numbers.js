// Numbers as text, the same texts as pipeline/numbers.py writes.
const MISSING = "–";
const [TINY, LARGE] = [1e-6, 1e9];

/** A score or loss: four decimals, more where rounding would reach 0 or 1 from between them. */
function scoreText(value, decimals = 4) {
  return value === undefined || value === null || Number.isNaN(value) ? MISSING : withSign(value, boundedText(Math.abs(value), decimals));
}

/** A count, its digits in threes. */
function countText(value) {
  return value === undefined || value === null ? MISSING : withSign(value, fixedText(Math.abs(value), 0));
}

/** A measured quantity: the digits that count, no zeros after them. */
function significantText(value, digits = 4) {
  if (value === undefined || value === null || Number.isNaN(value)) return MISSING;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-4 || size >= LARGE) return withSign(value, exponentText(size, digits - 1));
  const decimals = Math.max(0, digits - 1 - Number(size.toExponential().split("e")[1]));
  return withSign(value, decimals ? shorn(fixedText(size, decimals)) : fixedText(size, 0));
}

const TEXTS = { count: countText, score: scoreText, measure: (value) => significantText(value, 3) };

/** A difference of two values of one kind, its sign always shown. */
function differenceText(value, kind) {
  return (value > 0 ? "+" : "") + TEXTS[kind](value);
}

/** A p value; below a ten-thousandth only that it is. */
function pText(p) {
  return p >= 1e-4 ? scoreText(p) : "< 0.0001";
}

/** A tick as text: 0.3, 2 M, 1e-05. */
function tickText(value) {
  const size = Math.abs(value);
  const [, unit, prefix] = [[1e9, 1e9, "G"], [1e6, 1e6, "M"], [1e4, 1e3, "k"]].find(([least]) => size >= least) || [];
  return unit ? `${significantText(value / unit)} ${prefix}` : significantText(value, 6);
}

function boundedText(size, decimals) {
  if (size >= LARGE || (size > 0 && size < TINY)) return exponentText(size, size >= LARGE ? 3 : 1);
  let text = fixedText(size, decimals);
  for (let more = decimals + 1; size > 0 && size < 1 && [0, 1].includes(Number(text)); more += 1) text = fixedText(size, more);
  return text;
}

function fixedText(size, decimals) {
  const [whole, fraction] = size.toFixed(decimals).split(".");
  const inThrees = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction ? `${inThrees}.${fraction}` : inThrees;
}

function exponentText(size, decimals) {
  if (size === Infinity) return "∞";
  const [mantissa, power] = size.toExponential(decimals).split("e");
  return `${decimals ? shorn(mantissa) : mantissa}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

function shorn(text) {
  return text.replace(/\.?0+$/, "");
}

function withSign(value, text) {
  return value < 0 ? `−${text}` : text;
}
