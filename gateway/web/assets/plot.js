// Plots over time, drawn by uPlot in the page's own colours.
import { html, useEffect, useRef, useState, clock } from './ui.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

// Plot shows series of [times in s, values…]. With band, the first two series
// are the upper and the lower edge of one.
export function Plot({ data, band, height = 200, says, floor }) {
  const box = useRef(null);
  const plot = useRef(null);
  const [at, point] = useState(null);
  useEffect(() => {
    const make = () => {
      plot.current?.destroy();
      plot.current = new window.uPlot(options(box.current, data.length - 1, band, height, floor, point), data, box.current);
    };
    make();
    dark.addEventListener('change', make);
    const resize = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height }));
    resize.observe(box.current);
    return () => { dark.removeEventListener('change', make); resize.disconnect(); plot.current.destroy(); };
  }, []);
  useEffect(() => { plot.current?.setData(data); }, [data]);
  return html`<figure class="plot"><div ref=${box}></div><figcaption>${at == null || data[0][at] == null ? says(null) : html`${clock(data[0][at] * 1000)} · ${says(at)}`}</figcaption></figure>`;
}

function options(box, series, band, height, floor, point) {
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const axis = {
    stroke: colour('--muted'), font: '12px ' + colour('--font'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, gap: 6,
  };
  const line = { stroke: colour('--accent'), width: 1.5, points: { show: false }, spanGaps: false };
  return {
    width: box.clientWidth, height, legend: { show: false }, padding: [8, 28, 0, 0],
    cursor: { points: { show: false }, y: false, drag: { x: false, y: false } },
    scales: { y: { range: (u, min, max) => span(min, max, floor) } },
    axes: [
      { ...axis, size: 28, values: (u, ticks, i, space, step) => ticks.map((t) => clock(t * 1000).slice(-8, step < 60 ? undefined : -3)), space: 70 },
      { ...axis, size: (u, values) => 12 + 7 * Math.max(3, ...(values || []).map((v) => v.length)) },
    ],
    series: [{}, ...Array.from({ length: series }, (_, i) => ({ ...line, fill: band || i ? undefined : colour('--accent-soft') }))],
    bands: band ? [{ series: [1, 2], fill: colour('--accent-soft') }] : undefined,
    hooks: { setCursor: [(u) => point(u.cursor.idx ?? null)] },
  };
}

// span leaves room around what is drawn, also around a straight line.
function span(min, max, floor) {
  if (min == null) return [0, 1];
  if (floor != null) return [floor, Math.max(max * 1.1, floor + 10)];
  const room = max > min ? (max - min) * 0.1 : Math.max(Math.abs(max) * 0.02, 0.5);
  return [min - room, max + room];
}
