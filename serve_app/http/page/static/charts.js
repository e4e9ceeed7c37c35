/** A chart of one value per day, by uPlot. */

import { day } from "./format.js";
import { html, useEffect, useRef, useState } from "./lib.js";

const { uPlot } = self;
const HEIGHT = 200;
const DAY_S = 86_400;
const WHOLE_STEPS = Array.from({ length: 13 }, (_, zeros) => (
  [1, 2, 5].map((step) => step * 10 ** zeros)
)).flat();

/**
 * Bars for `points`, each `{day, value}`, oldest first. `show` formats a value.
 *
 * With `names`, each point also has a value `behind`, for a second bar in grey; `names` are those of
 * both. The day `chosen` is marked, and `onPick` gets the day of a clicked bar.
 *
 * The chart is for the eye: views also have a table with its values and inputs for the choice.
 */
export function DayChart({ label, points, show, names = null, chosen, onPick }) {
  const box = useRef();
  const pick = useRef();
  pick.current = onPick;
  const [pointed, setPointed] = useState(null);
  useEffect(() => {
    const parent = box.current;
    const chart = new uPlot(options(parent, show, chosen, setPointed), dataOf(points), parent);
    chart.over.addEventListener("click", () => {
      if (chart.cursor.idx !== null) pick.current?.(points[chart.cursor.idx].day);
    });
    const size = new ResizeObserver(() => (
      chart.setSize({ width: parent.clientWidth, height: HEIGHT })
    ));
    size.observe(parent);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const redraw = () => chart.redraw();
    scheme.addEventListener("change", redraw);
    return () => {
      scheme.removeEventListener("change", redraw);
      size.disconnect();
      chart.destroy();
    };
  }, [label, chosen, JSON.stringify(points)]);
  return html`
    <figure class="chart ${onPick ? "pickable" : ""}">
      <figcaption>
        <span>
          ${label}
          ${names && html`
            <span class="muted names">
              <span><span class="dot run"></span>${names[0]}</span>
              <span><span class="dot rest"></span>${names[1]}</span>
            </span>
          `}
        </span>
        <span class="muted">${caption(points, pointed, chosen, show, names)}</span>
      </figcaption>
      <div ref=${box} aria-hidden="true"></div>
    </figure>
  `;
}

/** The values of the day under the pointer, else of the chosen day, else the total. */
function caption(points, pointed, chosen, show, names) {
  const point = points[pointed] ?? points.find((each) => each.day === chosen);
  if (point) {
    const behind = names ? ` · ${names[1]}: ${show(point.behind)}` : "";
    return `${day(point.day)}: ${show(point.value)}${behind}`;
  }
  return names ? "" : `Total: ${show(points.reduce((sum, each) => sum + each.value, 0))}`;
}

function dataOf(points) {
  return [
    points.map((point) => secondOf(point.day)),
    points.map((point) => point.behind ?? null),
    points.map((point) => point.value),
  ];
}

const secondOf = (date) => Date.parse(`${date}T00:00:00Z`) / 1_000;

function options(parent, show, chosen, setPointed) {
  const muted = () => colour("--muted");
  const grid = { stroke: () => colour("--line"), width: 1 };
  const bars = (name) => ({
    fill: () => colour(name),
    width: 0,
    points: { show: false },
    paths: uPlot.paths.bars({ size: [0.75, 40], radius: 0.15 }),
  });
  return {
    width: parent.clientWidth,
    height: HEIGHT,
    padding: [8, 0, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1_000), "Etc/UTC"),
    scales: {
      x: { range: (_, first, last) => [first - DAY_S / 2, last + DAY_S / 2] },
      y: { range: (_, least, most) => [0, most > 0 ? most * 1.05 : 1] },
    },
    series: [{}, bars("--line-strong"), bars("--accent")],
    axes: [
      {
        stroke: muted,
        grid: { show: false },
        ticks: grid,
        size: 32,
        values: (_, places) => places.map((each) => day(new Date(each * 1_000).toISOString())),
        incrs: [1, 7, 14, 28].map((days) => days * DAY_S),
      },
      {
        stroke: muted,
        grid,
        ticks: grid,
        size: 76,
        incrs: WHOLE_STEPS,
        values: (_, values) => values.map(show),
      },
    ],
    hooks: {
      setCursor: [({ cursor }) => setPointed(cursor.idx ?? null)],
      drawClear: [(chart) => chosen && mark(chart, chosen)],
    },
  };
}

/** Shade a day. */
function mark(chart, date) {
  const [left, right] = [-0.5, 0.5].map((days) => (
    chart.valToPos(secondOf(date) + days * DAY_S, "x", true)
  ));
  chart.ctx.fillStyle = colour("--accent-weak");
  chart.ctx.fillRect(left, chart.bbox.top, right - left, chart.bbox.height);
}

/** The present value of a colour of the style, which depends on the scheme. */
function colour(name) {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(${name})`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
