"use strict";

// The data: one entry per task in each list, sorted by lane and start. Times are nanoseconds since the run's start.
const run = JSON.parse(document.getElementById("run").textContent);
const tasks = run.start.length;
const FAILED = run.endings.indexOf("failed");
const details = new Map(run.details);

// --- numbers as people read them ---

function duration(ns) {
  // Three digits tell a duration.
  return moment(ns, 10 ** (Math.floor(Math.log10(Math.max(ns, 1))) - 2));
}

/** A time with as many digits as tell it from one `step` later. */
function moment(ns, step) {
  if (ns >= 120e9 && step >= 1e9) {
    const seconds = Math.round(ns / 1e9), minutes = Math.floor(seconds / 60);
    const two = number => String(number).padStart(2, "0");
    return minutes < 60 ? `${minutes} min ${two(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  }
  const [size, unit] = ns < 1e3 ? [1, "ns"] : ns < 1e6 ? [1e3, "µs"] : ns < 1e9 ? [1e6, "ms"] : [1e9, "s"];
  const digits = Math.max(Math.ceil(Math.log10(size / Math.max(step, 1)) - 1e-9), 0);
  return `${(ns / size).toFixed(digits)} ${unit}`;
}

function bytes(amount) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (amount >= 1024 && power < units.length - 1) { amount /= 1024; power += 1; }
  return `${power ? amount.toPrecision(3) : amount} ${units[power]}`;
}

// --- timeline: what is where ---

// Where each lane's tasks begin in the lists, and for each task the latest end so far in its lane: the first task that
// may reach into a stretch of time is found by bisection even if tasks of a lane overlap.
const laneStart = new Uint32Array(run.lanes.length + 1);
const reach = new Float64Array(tasks);
for (let i = 0; i < tasks; i++) {
  laneStart[run.lane[i] + 1] += 1;
  const end = run.start[i] + run.length[i];
  reach[i] = i && run.lane[i - 1] === run.lane[i] ? Math.max(reach[i - 1], end) : end;
}
for (let lane = 0; lane < run.lanes.length; lane++) laneStart[lane + 1] += laneStart[lane];

/** The first place in low..high where `holds` is true; it must stay true from there on. */
function first(low, high, holds) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle; else low = middle + 1;
  }
  return low;
}

const PALETTE = ["#4e86c6", "#e58f35", "#57a86b", "#a678c2", "#4fb0b5", "#c9a227", "#97705a", "#7f8fd9", "#86a83a", "#c77fae"];
const critical = new Set(run.critical);
let matches = null; // Per name, whether the search finds it; null while nothing is searched for.

function colour(i) {
  return run.ending[i] === FAILED ? style.failed : PALETTE[run.name[i] % PALETTE.length];
}

// --- timeline: drawing ---

const canvas = document.getElementById("timeline");
const pen = canvas.getContext("2d");
const AXIS = 26, LEFT = 120, HEIGHT_MAX = 8000;
const row = Math.min(Math.max(380 / run.lanes.length, 9), 28, HEIGHT_MAX / run.lanes.length);
const whole = { from: 0, to: Math.max(run.wall, 1) };
let view = { ...whole }, style = {}, width = 0, waiting = false;

function redraw() {
  if (!waiting) { waiting = true; requestAnimationFrame(draw); }
}

function x(time) { return LEFT + (time - view.from) / (view.to - view.from) * (width - LEFT); }
function time(x) { return view.from + (x - LEFT) / (width - LEFT) * (view.to - view.from); }

function draw() {
  waiting = false;
  const css = getComputedStyle(document.documentElement);
  for (const name of ["ink", "faint", "line", "card", "failed", "critical"]) style[name] = css.getPropertyValue(`--${name}`);
  const height = AXIS + row * run.lanes.length, scale = window.devicePixelRatio || 1;
  width = canvas.parentElement.clientWidth;
  canvas.style.height = `${height}px`;
  canvas.width = width * scale;
  canvas.height = height * scale;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  drawAxis(height);
  for (let lane = 0; lane < run.lanes.length; lane++) drawLane(lane, AXIS + lane * row);
  drawLaneNames();
}

/** A round time of at least `wanted`. */
function axisStep(wanted) {
  const clock = [20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400].map(seconds => seconds * 1e9);
  if (wanted > 10e9) return clock.find(step => step >= wanted) ?? Math.ceil(wanted / 86400e9) * 86400e9;
  const power = 10 ** Math.floor(Math.log10(wanted));
  return Math.max([1, 2, 5, 10].find(n => n * power >= wanted) * power, 1);
}

function drawAxis(height) {
  const step = axisStep((view.to - view.from) / Math.max((width - LEFT) / 110, 1));
  pen.textAlign = "left";
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    pen.fillStyle = style.line;
    pen.fillRect(Math.round(x(at)), 0, 1, height);
    pen.fillStyle = style.faint;
    if (x(at) < width - 60) pen.fillText(at === 0 ? "0" : moment(at, step), x(at) + 4, AXIS / 2);
  }
}

// Tasks narrower than a pixel share it: the first is drawn, and critical or found ones beside it. So a view takes about
// as many rectangles as it has pixels, however many tasks there are. Failed ones come last, wide enough to be seen.
function drawLane(lane, top) {
  const end = laneStart[lane + 1], failed = [];
  let taken = -1;
  for (let i = first(laneStart[lane], end, i => reach[i] >= view.from); i < end && run.start[i] <= view.to; i++) {
    const left = Math.max(x(run.start[i]), LEFT), right = Math.min(x(run.start[i] + run.length[i]), width);
    const plain = !critical.has(i) && !(matches && matches[run.name[i]]);
    if (run.ending[i] === FAILED) failed.push([i, left, right]);
    else if (right >= LEFT && (!plain || right - left >= 1 || left >= taken)) {
      taken = Math.floor(left) + 1;
      drawTask(i, left, right, top, 1);
    }
  }
  for (const [i, left, right] of failed) drawTask(i, left, right, top, 3);
}

function drawTask(i, left, right, top, least) {
  const thickness = Math.max(row - Math.min(row / 5, 3), 0.5);
  const across = Math.max(right - left - (right - left > 3 ? 1 : 0), least);
  // Between pixels a narrow task would fade into its neighbours.
  if (across < 2) left = Math.floor(left);
  pen.globalAlpha = matches && !matches[run.name[i]] ? 0.12 : 1;
  pen.fillStyle = colour(i);
  pen.fillRect(left, top, across, thickness);
  if (critical.has(i)) {
    pen.fillStyle = style.critical;
    pen.fillRect(left, top + thickness - 3, across, 3);
  }
  if (across > 36 && row >= 14) drawName(run.names[run.name[i]], left + 5, top + thickness / 2, across - 10);
  pen.globalAlpha = 1;
}

function drawName(name, left, middle, room) {
  const characters = Math.floor(room / 6.6);
  pen.fillStyle = "#fff";
  pen.textAlign = "left";
  pen.fillText(name.length > characters ? `${name.slice(0, characters - 1)}…` : name, left, middle);
}

function drawLaneNames() {
  pen.fillStyle = style.card;
  pen.fillRect(0, 0, LEFT - 1, AXIS + row * run.lanes.length);
  pen.fillStyle = style.faint;
  pen.textAlign = "right";
  const every = Math.ceil(14 / row);
  for (let lane = 0; lane < run.lanes.length; lane += every) {
    const name = run.lanes[lane].length > 18 ? `${run.lanes[lane].slice(0, 17)}…` : run.lanes[lane];
    pen.fillText(name, LEFT - 10, AXIS + lane * row + Math.max(row, 12) / 2 - 1, LEFT - 16);
  }
}

// --- timeline: moving ---

function show(from, to) {
  const span = Math.min(Math.max(to - from, 50), whole.to - whole.from);
  from = Math.min(Math.max(from, whole.from), whole.to - span);
  view = { from, to: from + span };
  redraw();
}

function zoom(factor, at = (view.from + view.to) / 2) {
  show(at - (at - view.from) * factor, at + (view.to - at) * factor);
}

function pan(part) {
  const by = (view.to - view.from) * part;
  show(view.from + by, view.to + by);
}

canvas.addEventListener("wheel", event => {
  // The page scrolls under the wheel until the timeline has been clicked.
  if (!event.ctrlKey && document.activeElement !== canvas) return;
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan(event.deltaX / width);
  else zoom(2 ** (Math.sign(event.deltaY) / 3), time(Math.max(event.offsetX, LEFT)));
}, { passive: false });

let grip = null; // The time under the pointer while it drags.
canvas.addEventListener("pointerdown", event => {
  grip = time(event.offsetX);
  canvas.setPointerCapture(event.pointerId);
  canvas.classList.add("dragged");
});
for (const end of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(end, () => { grip = null; canvas.classList.remove("dragged"); });
}
canvas.addEventListener("pointermove", event => {
  if (grip === null) { hover(event); return; }
  const by = grip - time(event.offsetX);
  show(view.from + by, view.to + by);
  tip.hidden = true;
});
canvas.addEventListener("dblclick", event => zoom(1 / 4, time(event.offsetX)));
const KEYS = {
  "+": () => zoom(1 / 1.5), "=": () => zoom(1 / 1.5), "-": () => zoom(1.5), "0": () => show(whole.from, whole.to),
  ArrowLeft: () => pan(-0.2), ArrowRight: () => pan(0.2),
};
canvas.addEventListener("keydown", event => {
  if (KEYS[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); KEYS[event.key](); }
});
for (const button of document.querySelectorAll("button[data-key]")) {
  button.addEventListener("click", () => KEYS[button.dataset.key]());
}

// --- timeline: the task under the pointer ---

const tip = document.getElementById("tip");

/** The task at a point, or the last one that ended up to three pixels before it. */
function taskAt(left, top) {
  const lane = Math.floor((top - AXIS) / row);
  if (left < LEFT || lane < 0 || lane >= run.lanes.length) return -1;
  const at = time(left), slack = 3 * (view.to - view.from) / width;
  const after = first(laneStart[lane], laneStart[lane + 1], i => run.start[i] > at + slack);
  const lowest = first(laneStart[lane], after, i => reach[i] >= at - slack);
  for (let i = after - 1; i >= lowest; i--) {
    if (run.start[i] + run.length[i] >= at - slack) return i;
  }
  return -1;
}

function hover(event) {
  const i = taskAt(event.offsetX, event.offsetY);
  tip.hidden = i < 0;
  if (i < 0) return;
  const lines = [
    `#${run.index[i]}, ${run.kinds[run.kind[i]]}, ${run.endings[run.ending[i]]}, ${run.lanes[run.lane[i]]}`,
    `${duration(run.length[i])} from ${moment(run.start[i], run.length[i] / 10)}`,
  ];
  if (run.attempts.length && run.attempts[i] > 1) lines.push(`${run.attempts[i]} attempts`);
  if (run.cpu.length) lines.push(`${duration(run.cpu[i])} of CPU time`);
  if (run.rss.length) lines.push(`${bytes(run.rss[i])} at most`);
  if (critical.has(i)) lines.push("on the critical path");
  if (details.has(i)) lines.push(details.get(i));
  const name = document.createElement("b");
  name.textContent = run.names[run.name[i]];
  tip.replaceChildren(name, lines.join("\n"));
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(Math.min(event.clientX + 14, innerWidth - box.width - 8), 0)}px`;
  tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 8 : event.clientY + 18}px`;
}
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });

// --- legend ---

function chip(background, text) {
  const mark = document.createElement("i"), entry = document.createElement("span");
  mark.style.background = background;
  entry.append(mark, text);
  entry.title = text;
  return entry;
}
const legend = document.getElementById("legend");
run.names.slice(0, PALETTE.length).forEach((name, place) => legend.append(chip(PALETTE[place], name)));
if (run.names.length > PALETTE.length) legend.append(`and ${run.names.length - PALETTE.length} names more, in the same colours`);
if (run.ending.includes(FAILED)) legend.append(chip("var(--failed)", "failed"));
if (critical.size) legend.append(chip("var(--critical)", "critical path"));

// --- search and tables ---

const rows = [...document.querySelectorAll("tbody tr")];
const texts = rows.map(row => row.textContent.toLowerCase());
document.getElementById("search").addEventListener("input", event => {
  const wanted = event.target.value.trim().toLowerCase();
  matches = wanted ? run.names.map(name => name.toLowerCase().includes(wanted)) : null;
  rows.forEach((row, place) => { row.hidden = !texts[place].includes(wanted); });
  redraw();
});

function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
}
for (const head of document.querySelectorAll("th")) {
  head.firstElementChild.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], column = head.cellIndex;
    // Numbers start with the largest, text with A.
    const rising = head.ariaSort ? head.ariaSort === "descending" : head.classList.contains("text");
    for (const other of head.parentElement.cells) other.ariaSort = null;
    head.ariaSort = rising ? "ascending" : "descending";
    const sign = rising ? 1 : -1;
    body.append(...[...body.rows].sort((a, b) => {
      const [one, two] = [value(a, column), value(b, column)];
      return sign * (typeof one === "number" ? one - two : one.localeCompare(two));
    }));
  });
}

// --- graph: a box under the pointer shows its neighbours ---

const graph = document.querySelector("svg.graph");
if (graph) {
  const boxes = [...graph.querySelectorAll("g")], arrows = [...graph.querySelectorAll(":scope > path")];
  const light = box => {
    graph.classList.toggle("some", Boolean(box));
    for (const element of graph.querySelectorAll(".near")) element.classList.remove("near");
    if (!box) return;
    box.classList.add("near");
    for (const arrow of arrows.filter(arrow => [arrow.dataset.from, arrow.dataset.to].includes(box.dataset.box))) {
      arrow.classList.add("near");
      boxes[arrow.dataset.from].classList.add("near");
      boxes[arrow.dataset.to].classList.add("near");
    }
  };
  graph.addEventListener("pointerover", event => light(event.target.closest("g")));
  graph.addEventListener("pointerleave", () => light(null));
}

new ResizeObserver(redraw).observe(canvas.parentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
redraw();
