// One point: its value, its trend, where it is, and the write test.
import { html, useState, useEffect, useRef, Shape, api, clock, span, Loading } from './ui.js';
import { now, watch, pointState, useRaw } from './store.js';
import { Plot } from './plot.js';

export function Detail({ s, p, close }) {
  useEffect(() => {
    const key = (e) => e.key === 'Escape' && !document.querySelector('dialog[open]') && close();
    addEventListener('keydown', key);
    return () => removeEventListener('keydown', key);
  }, []);
  const device = s.status.devices.find((d) => d.name === p.device) || {};
  return html`<aside class="detail card" aria-label=${`Point ${p.name} of ${p.device}`}>
    <header><div><h2>${p.name}</h2><small>${[p.label, device.label || p.device].filter(Boolean).join(' · ')}</small></div><button class="close" onClick=${close} aria-label="Close">×</button></header>
    <p class=${'big ' + pointState(p)}>${p.quality ? p.value : '–'} <small>${p.unit || ''}</small></p>
    <p class="state"><${Shape} of=${pointState(p)} /> ${p.reason || 'good'} · ${!p.time ? 'not read yet' : p.quality ? `${span(now() - p.time)} old` : `tried ${span(now() - p.time)} ago`}</p>
    <${TrendOf} p=${p} />
    <dl class="facts">
      ${fact('Address', p.place)}${fact('Type', p.type)}<${Raw} p=${p} />${fact('Polled every', p.poll_ms ? span(p.poll_ms) : 'never')}
      ${fact('Device', p.device)}${fact(p.quality ? 'Read at' : 'Tried at', p.time ? clock(p.time) : null)}${fact('Limits', p.min && p.max ? `${p.min} to ${p.max} ${p.unit || ''}` : null)}
    </dl>
    ${p.access !== 'r' && s.writeTest && html`<${WriteTest} p=${p} />`}
  </aside>`;
}

const fact = (name, value) => value && html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

// Raw is what the device sent, where its adapter can tell.
function Raw({ p }) {
  const raw = useRaw([p]);
  return fact('Raw', raw[p.index] && html`<code>${raw[p.index]}</code>`);
}

function TrendOf({ p }) {
  const [data, set] = useState(null);
  const kept = useRef(null);
  useEffect(() => {
    let gone = false;
    api(`/api/trend?device=${encodeURIComponent(p.device)}&point=${encodeURIComponent(p.name)}`).then((t) => {
      if (gone) return;
      kept.current = [t.times.map((x) => x / 1000), t.high, t.low];
      set([...kept.current]);
    }, () => gone || set([[], [], []]));
    const stop = watch(() => kept.current && add(kept.current, p) && set(kept.current.map((x) => x.slice())));
    return () => { gone = true; stop(); };
  }, []);
  if (!data) return html`<${Loading} what="the trend" />`;
  const values = data[1].some((v) => v != null);
  if (!values) return html`<p class="quiet">${p.quality === 2 && isNaN(number(p.value)) ? 'Only numbers have a trend.' : 'No values yet to draw a trend of.'}</p>`;
  const from = data[0][0], to = data[0][data[0].length - 1];
  return html`<${Plot} data=${data} band says=${(i) => (i == null ? `the last ${span((to - from) * 1000)}` : range(data[2][i], data[1][i], p.unit))} height=${180} />`;
}

const number = (text) => (text === 'true' ? 1 : text === 'false' ? 0 : text === '' ? NaN : Number(text));

// add puts the latest value behind the trend.
function add(trend, p) {
  const at = p.time / 1000, value = p.quality ? number(p.value) : NaN;
  const last = trend[0][trend[0].length - 1] || 0;
  if (!p.time || at <= last) return false;
  const v = isNaN(value) ? null : value;
  trend[0].push(at); trend[1].push(v); trend[2].push(v);
  return true;
}

function range(low, high, unit) {
  if (low == null) return 'no value';
  const digits = (x) => String(Math.round(x * 1e6) / 1e6);
  return (low === high ? digits(low) : `${digits(low)} to ${digits(high)}`) + ' ' + (unit || '');
}

// WriteTest asks, asks again, writes, and says what came of it.
function WriteTest({ p }) {
  const [value, set] = useState('');
  const [result, tell] = useState(null);
  const [busy, work] = useState(false);
  const dialog = useRef(null);
  const write = async () => {
    dialog.current.close();
    work(true);
    try {
      const r = await api('/api/write', { device: p.device, point: p.name, value });
      tell({ state: r.result === 'done' ? 'good' : r.result === 'unknown' ? 'warn' : 'bad', text: [r.result, r.new && `it reads ${r.new}`, r.reason].filter(Boolean).join(': ') });
    } catch (error) {
      tell({ state: 'bad', text: error.message });
    }
    work(false);
  };
  const options = p.enum?.length ? p.enum : p.type === 'bool' ? ['true', 'false'] : null;
  return html`<form class="write" onSubmit=${(e) => { e.preventDefault(); tell(null); dialog.current.showModal(); }}>
    <h3>Write test</h3>
    <div class="write-line">
      ${options ? html`<select required value=${value} onChange=${(e) => set(e.target.value)} aria-label="New value"><option value="">choose …</option>${options.map((o) => html`<option>${o}</option>`)}</select>`
        : html`<input inputmode=${p.type === 'string' ? 'text' : 'decimal'} required value=${value} onInput=${(e) => set(e.target.value)} placeholder=${p.min && p.max ? `${p.min} to ${p.max}` : 'new value'} aria-label="New value" autocomplete="off" />`}
      <button disabled=${busy || !value}>${busy ? 'Writing …' : 'Write …'}</button>
    </div>
    ${result && html`<p class=${'says ' + result.state} role="status" id="write-result"><${Shape} of=${result.state} /> ${result.text}</p>`}
    <dialog ref=${dialog} class="card"><h3>Write to the field?</h3>
      <p><b>${p.name}</b> of <b>${p.device}</b> becomes <b>${value} ${p.unit || ''}</b>.${p.quality ? ` It is ${p.value} ${p.unit || ''} now.` : ''}</p>
      <p class="quiet">A machine may move. Stand where you can see it.</p>
      <div class="choices"><button type="button" onClick=${() => dialog.current.close()}>Leave it</button><button type="button" class="main" id="write-confirm" onClick=${write}>Write ${value}</button></div>
    </dialog></form>`;
}
