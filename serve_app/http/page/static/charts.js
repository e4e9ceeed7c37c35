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
 * The chart is for the eye: views also have a table with its values.
 */
export function DayChart({ label, points, show }) {
  const box = useRef();
  const [pointed, setPointed] = useState(null);
  const total = points.reduce((sum, point) => sum + point.value, 0);
  useEffect(() => {
    const parent = box.current;
    const chart = new uPlot(options(parent, show, setPointed), dataOf(points), parent);
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
  }, [label, JSON.stringify(points)]);
  const point = points[pointed];
  return html`
    <figure class="chart">
      <figcaption>
        <span>${label}</span>
        <span class="muted">
          ${point ? `${day(point.day)}: ${show(point.value)}` : `Total: ${show(total)}`}
        </span>
      </figcaption>
      <div ref=${box} aria-hidden="true"></div>
    </figure>
  `;
}

function dataOf(points) {
  return [
    points.map((point) => Date.parse(`${point.day}T00:00:00Z`) / 1_000),
    points.map((point) => point.value),
  ];
}

function options(parent, show, setPointed) {
  const muted = () => colour("--muted");
  const grid = { stroke: () => colour("--line"), width: 1 };
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
    series: [
      {},
      {
        fill: () => colour("--accent"),
        width: 0,
        points: { show: false },
        paths: uPlot.paths.bars({ size: [0.75, 40], radius: 0.15 }),
      },
    ],
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
    hooks: { setCursor: [({ cursor }) => setPointed(cursor.idx ?? null)] },
  };
}

/** The present value of a colour of the style, which depends on the scheme. */
function colour(name) {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(${name})`;
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
