// The table of all points. Only the rows in sight exist.
import { html, useState, useEffect, useRef, useMemo, Empty, Loading, Shape, count, span } from './ui.js';
import { now, pointState, useRaw, version } from './store.js';
import { Detail } from './detail.js';

const rowHeight = 44;
const spare = 6;

export function Points({ s, query }) {
  const [text, search] = useState('');
  const [onlyBad, wantBad] = useState(false);
  const [raw, wantRaw] = useState(false);
  const [chosen, choose] = useState(-1);
  const device = query.get('device') || '';
  const devices = useMemo(() => [...new Set(s.points.map((p) => p.device))], [version.site]);
  useEffect(() => choose(-1), [version.site, device]);
  const found = useFound(s.points, text, device, onlyBad);
  const to = (name) => { location.hash = '#/points' + (name ? '?device=' + encodeURIComponent(name) : ''); };
  if (!s.points.length) return s.status.devices.length ? html`<${Loading} what="the points" />` : html`<${Empty} title="There are no points">The site file lists no device that is enabled.<//>`;
  return html`<div class=${'points' + (chosen >= 0 ? ' with-detail' : '') + (raw ? ' with-raw' : '')}>
    <div class="tools">
      <input type="search" placeholder="Name, label, unit or address" value=${text} onInput=${(e) => search(e.target.value)} aria-label="Filter points" id="filter" />
      <select value=${device} onChange=${(e) => to(e.target.value)} aria-label="Device"><option value="">All devices</option>${devices.map((d) => html`<option value=${d}>${d}</option>`)}</select>
      <button class="toggle" aria-pressed=${onlyBad} onClick=${() => wantBad(!onlyBad)}><${Shape} of="warn" /> Not good</button>
      <button class="toggle" aria-pressed=${raw} onClick=${() => wantRaw(!raw)} id="raw" title="What the devices sent">Raw</button>
      <span class="aside">${found.length === s.points.length ? count(found.length) : `${count(found.length)} of ${count(s.points.length)}`} points</span>
    </div>
    <div class="head" aria-hidden="true"><span></span><span>point</span><span class="num">value</span><span class="num age">age</span><span class="place">address</span>${raw && html`<span class="raw">sent</span>`}</div>
    ${found.length ? html`<${Rows} s=${s} found=${found} chosen=${chosen} choose=${choose} one=${!!device} raw=${raw} />`
      : html`<${Empty} title=${onlyBad && !text ? 'All points are good' : 'No point fits'}>${onlyBad && !text ? '' : 'Try another word, or all devices.'}<//>`}
    ${chosen >= 0 && s.points[chosen] && html`<${Detail} key=${chosen} s=${s} p=${s.points[chosen]} close=${() => choose(-1)} />`}
  </div>`;
}

// useFound are the indexes of the points that fit; looking for bad ones is done
// anew with each tick.
function useFound(points, text, device, onlyBad) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const fit = useMemo(() => points.filter((p) => (!device || p.device === device) && words.every((w) => p.hay.includes(w))).map((p) => p.index), [version.site, text, device]);
  return onlyBad ? fit.filter((i) => points[i].quality !== 2) : fit;
}

function Rows({ s, found, chosen, choose, one, raw }) {
  const list = useRef(null);
  const [window_, see] = useState({ first: 0, last: 40 });
  useEffect(() => {
    const look = () => {
      const top = -list.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / rowHeight) - spare);
      const last = Math.ceil((top + innerHeight) / rowHeight) + spare;
      see((w) => (w.first === first && w.last === last ? w : { first, last }));
    };
    look();
    addEventListener('scroll', look, { passive: true });
    addEventListener('resize', look);
    return () => { removeEventListener('scroll', look); removeEventListener('resize', look); };
  }, []);
  const first = Math.min(window_.first, Math.max(0, found.length - 1));
  const last = Math.min(found.length, window_.last);
  const sent = useRaw(raw ? found.slice(first, last).map((i) => s.points[i]) : []);
  const rows = [];
  for (let k = first; k < last; k++) rows.push(html`<${Row} key=${k % 128} top=${k * rowHeight} p=${s.points[found[k]]} one=${one} raw=${raw && (sent[found[k]] || '–')} chosen=${found[k] === chosen} choose=${choose} />`);
  return html`<div class="list" ref=${list} style=${{ height: found.length * rowHeight + 'px' }} role="list">${rows}</div>`;
}

function Row({ p, top, one, raw, chosen, choose }) {
  const state = pointState(p);
  return html`<button class=${'row ' + state} role="listitem" style=${{ transform: `translateY(${top}px)` }} aria-pressed=${chosen} onClick=${() => choose(chosen ? -1 : p.index)} data-point=${p.device + '/' + p.name}>
    <${Shape} of=${state} says=${p.reason || 'good'} />
    <span class="name"><b>${p.name}</b><small>${[!one && p.device, p.label].filter(Boolean).join(' · ')}</small></span>
    ${p.quality === 0 ? html`<span class="why">${p.reason}</span>` : html`<span class="num value">${p.value}<small>${p.unit || ''}</small></span>`}
    <span class="num age">${p.time ? span(now() - p.time) : '–'}</span>
    <span class="place">${p.place || ''}</span>${raw && html`<code class="raw">${raw}</code>`}</button>`;
}
