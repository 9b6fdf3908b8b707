// Events and audit: what happened, newest first.
import { html, Card, Empty, Failed, Loading, Shape, clock, useAsked } from './ui.js';

function List({ path, title, what, empty, explain, line }) {
  const { answer, error, again } = useAsked(path, 3000);
  if (error && error.status === 404) return html`<${Card} title=${title}><${Empty} title=${empty}>${explain}<//><//>`;
  if (error) return html`<${Card} title=${title}><${Failed} what=${title} error=${error.message} again=${again} /><//>`;
  if (!answer) return html`<${Loading} what=${what} />`;
  return html`<${Card} title=${title} flush>${answer.length ? html`<div class="table">${answer.slice().reverse().map(line)}</div>` : html`<${Empty} title=${empty}>${explain}<//>`}<//>`;
}

const severities = { alarm: 'bad', warning: 'warn', info: 'none', information: 'none' };
const states = { raised: 'raised', cleared: 'cleared', happened: '' };

export function Events() {
  return html`<${List} path="/api/events" title="Events" what="the events" empty="No event yet" explain="Events that the site file defines show here when they are raised and when they clear."
    line=${(e, i) => html`<div class="line" key=${e.id || i}><time>${clock(e.time)}</time><span class="what"><${Shape} of=${e.state === 'cleared' ? 'good' : severities[e.severity] || 'none'} says=${e.severity} />
      <span><b>${e.event}</b> ${states[e.state] ?? e.state} <small>${e.device || 'gateway'}</small></span></span>
      <span class="wide">${Object.entries(e.params || {}).map(([k, v]) => html`<span class="param">${k} <b>${String(v)}</b></span>`)}</span></div>`} />`;
}

const results = { done: 'good', refused: 'warn', failed: 'bad', unknown: 'bad' };

export function Audit() {
  return html`<${List} path="/api/audit?limit=300" title="Audit" what="the audit" empty="Nothing was written yet" explain="Every attempt to write to the field leaves a line here: who, what, and what came of it."
    line=${(a, i) => html`<div class="line" key=${a.time + i}><time>${clock(a.time)}</time><span class="what"><${Shape} of=${results[a.result] || 'none'} says=${a.result} />
      <span><b>${a.command || a.point || '–'}</b> ${a.result} <small>${[a.device, a.who].filter(Boolean).join(' · ')}</small></span></span>
      <span class="wide">${a.asked && html`<span class="param">asked <b>${a.asked}</b></span>`}${a.old && html`<span class="param">was <b>${a.old}</b></span>`}${a.new && html`<span class="param">reads <b>${a.new}</b></span>`}${a.reason}</span></div>`} />`;
}
