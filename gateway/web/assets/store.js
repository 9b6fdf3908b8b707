// What the gateway said last, and the stream that keeps it up to date.
import { useState, useEffect, setZone, api } from './ui.js';

export const state = {
  phase: 'loading', // loading, live, lost, login
  lostAt: 0,
  refusal: '', // why the gateway, which answers, keeps no stream open for us
  status: null, writeTest: false, history: 0,
  points: [], // { device, name, …, value, quality, reason, time, hay }
  time: 0, // of the gateway
  behind: 0, // the gateway's clock less ours
};

const listeners = new Set();
const watchers = new Set(); // of points: called with each tick
export const version = { site: 0, tick: 0 };

function tell() {
  version.tick++;
  for (const l of listeners) l(version.tick);
}

// useStore renders a component again with each tick.
export function useStore() {
  const [, set] = useState(0);
  useEffect(() => { listeners.add(set); return () => listeners.delete(set); }, []);
  return state;
}

// watch calls back with each tick, for what draws by itself.
export function watch(f) { watchers.add(f); return () => watchers.delete(f); }

// now is the gateway's clock: ages are right also where ours is wrong.
export const now = () => Date.now() + state.behind;

let source = null;
let wantPoints = false;
let retry = 0;

// wants says whether the screen shows points.
export function wants(points) {
  if (points === wantPoints && source) return;
  wantPoints = points;
  connect();
}

export function connect() {
  close();
  if (document.hidden) return; // until somebody looks
  source = new EventSource('/api/stream' + (wantPoints ? '?points=1' : ''));
  source.addEventListener('hello', (e) => hello(JSON.parse(e.data)));
  source.addEventListener('tick', (e) => tick(JSON.parse(e.data)));
  source.onerror = lost;
}

function close() {
  clearTimeout(retry);
  if (source) source.close();
  source = null;
}

async function lost() {
  close();
  if (state.phase === 'live') Object.assign(state, { phase: 'lost', lostAt: Date.now() });
  try {
    state.refusal = (await api('/api/hello')).refusal || '';
  } catch (error) {
    state.refusal = '';
    if (error.status === 401) {
      state.phase = 'login';
      return tell();
    }
    if (state.phase === 'loading') Object.assign(state, { phase: 'lost', lostAt: Date.now() });
  }
  if (source) return; // another screen has asked anew meanwhile
  tell();
  retry = setTimeout(connect, 2000);
}

function hello(m) {
  state.phase = 'live';
  state.status = m.status;
  state.writeTest = !!m.write_test;
  state.history = m.history_ms;
  setZone(m.timezone);
  document.title = m.status.site + ' – sluice';
  if (wantPoints) {
    state.points = (m.points || []).map((p, index) => ({
      ...p, index, value: '', quality: 0, reason: 'not read yet', time: 0,
      hay: `${p.device} ${p.name} ${p.label || ''} ${p.unit || ''} ${p.place || ''}`.toLowerCase(),
    }));
  }
  version.site++;
}

function tick(m) {
  state.time = m.time;
  state.behind = m.time - Date.now();
  for (const section of ['buses', 'devices', 'cloud', 'buffer', 'locks']) {
    if (m[section]) state.status = { ...state.status, [section]: m[section] };
  }
  const { points } = state;
  for (const [i, value, quality, reason] of m.points || []) {
    const p = points[i];
    p.value = value; p.quality = quality; p.reason = reason || '';
  }
  for (const [from, to, at] of m.times || []) {
    for (let i = from; i <= to; i++) points[i].time = at;
  }
  for (const w of watchers) w();
  tell();
}

// useRaw is what devices sent for these points last, by the points' indexes.
export function useRaw(points) {
  const [raw, set] = useState({});
  const names = points.map((p) => p.device + '/' + p.name).join();
  useEffect(() => {
    if (!points.length) return;
    let gone = false;
    const query = points.map((p) => 'point=' + encodeURIComponent(p.device + '/' + p.name)).join('&');
    const ask = () => api('/api/raw?' + query).then((r) => gone || set(Object.fromEntries(points.map((p, i) => [p.index, r.raw[i]]))), () => {});
    ask();
    const timer = setInterval(() => document.hidden || ask(), 2000);
    return () => { gone = true; clearInterval(timer); };
  }, [names]);
  return raw;
}

// A page that nobody sees asks for nothing.
let away = 0;
document.addEventListener('visibilitychange', () => {
  clearTimeout(away);
  if (document.hidden) away = setTimeout(close, 30000);
  else if (!source && state.phase !== 'login') connect();
});

// Nor one that the browser keeps for its back button: it would hold one of the
// few connections that a browser opens to a server.
addEventListener('pagehide', close);
addEventListener('pageshow', (e) => e.persisted && connect());

// trouble is what is wrong, worst first.
export function trouble(s) {
  const found = [];
  for (const b of s.buses) {
    if (b.state === 'down') found.push({ state: 'bad', where: b.name, text: b.error, to: '' });
    else if (b.state === 'silent') found.push({ state: 'bad', where: b.name, text: 'connected, but no unit answers', to: '' });
  }
  const down = new Set(s.buses.filter((b) => b.state === 'down').map((b) => b.name));
  for (const d of s.devices) {
    if (d.health && !down.has(d.bus)) found.push({ state: d.online ? 'warn' : 'bad', where: d.label || d.name, text: d.health, to: 'points?device=' + encodeURIComponent(d.name) });
  }
  for (const c of s.cloud) {
    if (!c.connected) found.push({ state: 'bad', where: 'cloud ' + c.user, text: c.error || 'not connected yet', to: 'cloud' });
  }
  if (s.buffer.failing_since) found.push({ state: 'bad', where: 'buffer', text: 'the disk can’t be written; records are held in memory', to: 'cloud' });
  return found.sort((a, b) => (a.state === b.state ? 0 : a.state === 'bad' ? -1 : 1));
}

export const busState = (b) => ({ up: 'good', starting: 'none', silent: 'bad', down: 'bad' })[b.state] || 'none';
export const deviceState = (d) => (d.online ? (d.health ? 'warn' : 'good') : d.health ? 'bad' : 'none');
export const pointState = (p) => (p.time === 0 ? 'none' : ['bad', 'warn', 'good'][p.quality]);
