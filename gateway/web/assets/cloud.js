// The way to the cloud: what waits, how it went, and each session.
import { html, useState, useEffect, Card, Empty, Failed, Figure, Loading, Shape, ago, count, size, span, useAsked, clock, plural } from './ui.js';
import { now, watch, state } from './store.js';
import { Plot } from './plot.js';
import { drains } from './overview.js';

export function Cloud({ s }) {
  const { cloud, buffer } = s.status;
  return html`
    <div class="figures">
      <${Figure} name="Waiting" value=${count(buffer.waiting)} unit=${buffer.waiting === 1 ? 'record' : 'records'} note=${drains(buffer)} />
      <${Figure} name="Time to drain" value=${drain(buffer)} note=${buffer.drain_ms < 0 ? 'it does not get less' : buffer.drain_ms ? 'at the speed of now' : 'nothing held back'} />
      <${Figure} name="Buffer file" value=${size(buffer.file_bytes)} note=${buffer.failing_since ? 'can’t be written' : `at most ${size(buffer.max_bytes)}`} state=${buffer.failing_since ? 'bad' : null} />
      <${Figure} name="Lost" value=${count(buffer.dropped)} unit="records" note="since the start" state=${buffer.dropped ? 'warn' : null} />
    </div>
    <${Card} title="Records that wait"><${Depth} /><//>
    <${Card} title="Sessions" flush>${cloud.length ? html`<div class="rows">${cloud.map((c) => html`<${Session} key=${c.user} c=${c} />`)}</div>`
      : html`<${Empty} title="No cloud device">The site file names no login.<//>`}<//>
    <${Quarantine} />`;
}

const drain = (x) => (x.drain_ms < 0 ? '–' : span(x.drain_ms));

function Depth() {
  const [data, set] = useState(null);
  useEffect(() => {
    let kept = null, gone = false;
    fetch('/api/history').then((r) => r.json()).then((d) => { kept = [d.times.map((t) => t / 1000), d.waiting]; if (!gone) set([...kept]); }, () => gone || set([[], []]));
    const stop = watch(() => {
      if (!kept) return;
      kept[0].push(state.time / 1000);
      kept[1].push(state.status.buffer.waiting);
      set(kept.map((x) => x.slice()));
    });
    return () => { gone = true; stop(); };
  }, []);
  if (!data) return html`<${Loading} what="the last hours" />`;
  return html`<${Plot} data=${data} floor=${0} height=${220} says=${(i) => (i == null ? (data[0].length ? `since ${clock(data[0][0] * 1000)}` : 'nothing yet') : plural(data[1][i], 'record'))} />`;
}

// what counts as delivered, in words.
const modes = { puback: 'broker (PUBACK)', response: 'platform’s response', auto: 'finding out' };

function Session({ c }) {
  const up = !!c.connected;
  return html`<article class="bus" data-user=${c.user}><div class="bus-name"><${Shape} of=${up ? 'good' : 'bad'} /><div><b>${c.user}</b><small>${up ? `connected for ${ago(now(), c.connected)}` : 'no connection'}</small></div></div>
    <dl><div><dt>waiting</dt><dd>${count(c.waiting)}${c.drain_ms && c.oldest ? html` <small>since ${clock(c.oldest)}</small>` : ''}</dd></div><div><dt>to drain</dt><dd>${drain(c)}</dd></div><div><dt>confirmed</dt><dd>${count(c.confirmed)}</dd></div>
      <div><dt>pace</dt><dd>${c.pace_ms ? html`1 <small>per ${span(c.pace_ms)}</small>` : 'free'}</dd></div><div><dt>confirmed by</dt><dd>${modes[c.mode] || c.mode}</dd></div></dl>
    ${c.error && html`<p class="says bad">${c.error}</p>`}</article>`;
}

function Quarantine() {
  const { answer, error, again } = useAsked('/api/buffer/quarantine', 10000);
  if (error) return html`<${Card} title="Refused by the cloud"><${Failed} what="The quarantine" error=${error.message} again=${again} /><//>`;
  if (!answer) return null;
  return html`<${Card} title="Refused by the cloud" aside=${answer.length ? plural(answer.length, 'record') : ''} flush>${answer.length ? html`<div class="table">
    ${answer.slice(-100).reverse().map((q) => html`<div class="line" key=${q.number}><span class="num">${q.number}</span><span><b>${q.user}</b> <small>${clock(q.measured, true)}</small></span><span class="wide">${q.reason}</span></div>`)}</div>
    <p class="quiet pad">Put one back, or drop it, with <code>sluice buffer quarantine</code> on the gateway.</p>`
    : html`<${Empty} title="Nothing was refused">A record that the platform refuses three times is kept here.<//>`}<//>`;
}
