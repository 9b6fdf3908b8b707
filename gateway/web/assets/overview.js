// The first screen: what is wrong, the buses, the devices.
import { html, Card, Empty, Figure, Shape, ago, count, rate, span, size, plural } from './ui.js';
import { now, trouble, busState, deviceState } from './store.js';

export function Overview({ s }) {
  const { buses, devices, cloud, buffer } = s.status;
  const online = devices.filter((d) => d.online).length;
  const connected = cloud.filter((c) => c.connected).length;
  const values = buses.reduce((sum, b) => sum + b.values_per_second, 0);
  return html`
    <${Troubles} found=${trouble(s.status)} />
    <div class="figures">
      <${Figure} name="Devices" value=${`${online}`} unit=${`of ${devices.length}`} note="give values" state=${online === devices.length ? 'good' : 'bad'} />
      <${Figure} name="Measured" value=${rate(values)} unit="values/s" note=${plural(buses.length, 'bus', 'buses')} />
      <${Figure} name="Cloud" value=${`${connected}`} unit=${`of ${cloud.length}`} note="connected" state=${connected === cloud.length ? 'good' : 'bad'} />
      <${Figure} name="Waiting" value=${count(buffer.waiting)} unit=${buffer.waiting === 1 ? 'record' : 'records'} note=${drains(buffer)} state=${buffer.failing_since ? 'bad' : null} />
    </div>
    <${Card} title="Buses" flush>${buses.length ? html`<div class="rows">${buses.map((b) => html`<${Bus} key=${b.name} b=${b} />`)}</div>`
      : html`<${Empty} title="No bus is in use">The site file lists no device that is enabled.<//>`}<//>
    <${Card} title="Devices" aside=${`${online} of ${devices.length} give values`} flush>${devices.length
      ? html`<div class="devices">${sorted(devices).map((d) => html`<${Device} key=${d.name} d=${d} />`)}</div>` : html`<${Empty} title="No device is in use" />`}<//>
    <p class="foot">sluice ${s.status.version} · up ${ago(now(), s.status.started)} · the cloud ${s.status.writes === 'enabled' ? 'may write to the field' : 'may not write to the field'} · buffer ${size(buffer.file_bytes)}</p>`;
}

export function drains(b) {
  if (b.drain_ms > 0) return `up to date in ${span(b.drain_ms)}`;
  return b.drain_ms < 0 ? 'held back' : 'nothing held back';
}

const rank = { bad: 0, warn: 1, none: 2, good: 3 };
const sorted = (devices) => devices.map((d, i) => [rank[deviceState(d)], i, d]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((x) => x[2]);

function Troubles({ found }) {
  if (!found.length) return null;
  return html`<section class="troubles" aria-label="What needs attention">${found.slice(0, 8).map((t) => html`<a class="trouble" href=${'#/' + t.to}>
    <${Shape} of=${t.state} /><b>${t.where}</b><span>${t.text}</span></a>`)}
    ${found.length > 8 && html`<p class="more">and ${found.length - 8} more</p>`}</section>`;
}

function Bus({ b }) {
  const busy = Math.round(100 * b.utilisation);
  return html`<article class="bus" data-bus=${b.name}>
    <div class="bus-name"><${Shape} of=${busState(b)} says=${b.state} /><div><b>${b.name}</b><small>${b.type} · ${b.place}</small></div></div>
    <dl>
      <div><dt>state</dt><dd>${stateWords(b)}</dd></div>
      <div><dt>requests</dt><dd>${rate(b.requests_per_second)} <small>/s</small></dd></div>
      <div><dt>values</dt><dd>${rate(b.values_per_second)} <small>/s</small></dd></div>
      <div class="load"><dt>busy</dt><dd>${busy} <small>%</small></dd><${Meter} share=${b.utilisation} /></div>
      <div><dt>overruns</dt><dd class=${b.overruns ? 'noted' : ''}>${count(b.overruns)}</dd></div>
      <div><dt>devices</dt><dd>${b.online} <small>of ${b.devices}</small></dd></div>
    </dl>
    ${b.error ? html`<p class="says bad">${b.error}</p>` : b.last_error && html`<p class="says">last lost ${ago(now(), b.last_error_at)} ago: ${b.last_error}</p>`}
    ${(b.learnt || []).slice(0, 3).map((l) => html`<p class="says">${l.device}: ${l.range} ${l.what} (${l.reason})</p>`)}
    ${b.learnt?.length > 3 && html`<p class="says">and ${b.learnt.length - 3} more things that its devices refuse</p>`}
  </article>`;
}

function stateWords(b) {
  const since = b.since ? html` <small>${ago(now(), b.since)}</small>` : '';
  return html`${{ up: 'up', starting: 'starting', silent: 'no answer', down: 'down' }[b.state] || b.state}${since}`;
}

// Meter is a share of 1; above nine tenths there is no room left.
function Meter({ share }) {
  return html`<svg class=${'meter' + (share > 0.9 ? ' full' : '')} viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true"><rect width="100" height="4" class="meter-back" /><rect width=${100 * Math.min(1, share)} height="4" /></svg>`;
}

function Device({ d }) {
  return html`<a class="device" href=${'#/points?device=' + encodeURIComponent(d.name)} data-device=${d.name}>
    <${Shape} of=${deviceState(d)} /><div><b>${d.label || d.name}</b><small>${[d.label && d.name, d.profile, `${d.bus}${d.unit ? ' unit ' + d.unit : ''}`].filter(Boolean).join(' · ')}</small>
    ${d.health && html`<p class=${'says ' + deviceState(d)}>${d.health}</p>`}</div>
    <span class="device-points">${d.bad ? html`<span class="noted">${d.points - d.bad}</span>` : d.points} <small>${d.bad ? `of ${d.points}` : ''} points</small></span></a>`;
}
