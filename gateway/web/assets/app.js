// The frame of the page: header, screens, the door.
import { html, render, useState, useEffect, Shape, ago, api, clock } from './ui.js';
import { useStore, wants, connect, trouble, now } from './store.js';
import { Overview } from './overview.js';
import { Points } from './points.js';
import { Cloud } from './cloud.js';
import { Events, Audit } from './lists.js';
import { Site } from './site.js';

const screens = [
  ['', 'Overview', Overview], ['points', 'Points', Points], ['cloud', 'Cloud', Cloud], ['events', 'Events', Events], ['audit', 'Audit', Audit], ['site', 'Site', Site],
];

// icons of the screens, for the bar at a phone's bottom.
const icons = {
  '': 'M3 3h6v8H3ZM11 3h6v5h-6ZM11 10h6v7h-6ZM3 13h6v4H3Z', points: 'M3 5h14M3 10h14M3 15h9', cloud: 'M6 15a3.500 3.500 0 0 1 .4-7A4.600 4.600 0 0 1 15 9a3 3 0 0 1-.5 6Z',
  events: 'M10 3 18 16.500H2ZM10 8v4M10 14v.3', audit: 'M5 3h10v14l-2.500-1.500L10 17l-2.500-1.500L5 17ZM8 7h4M8 10.500h4', site: 'M5 3h7l3 3v11H5ZM8 9h4M8 12.500h4',
};

function Icon({ of }) {
  return html`<svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${icons[of]} fill="none" stroke="currentColor" stroke-width="1.500" stroke-linejoin="round" stroke-linecap="round" /></svg>`;
}

function route() {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?');
  return { path, query: new URLSearchParams(query) };
}

function App() {
  const s = useStore();
  const [at, go] = useState(route);
  useEffect(() => {
    const moved = () => { go(route()); window.scrollTo(0, 0); };
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  const [, , Screen] = screens.find(([path]) => path === at.path) || screens[0];
  useEffect(() => wants(at.path === 'points'), [at.path]);
  if (s.phase === 'login') return html`<${Login} />`;
  if (!s.status) return html`<${Boot} s=${s} />`;
  return html`<div class=${s.phase === 'lost' ? 'frame stale' : 'frame'}>
    <${Header} s=${s} path=${at.path} />
    ${s.phase === 'lost' && html`<p class="lost" role="alert"><${Shape} of="bad" /> ${s.refusal ? `The gateway says: ${s.refusal}.` : `The gateway has not answered for ${ago(Date.now(), s.lostAt)}.`} What you see is its last word.</p>`}
    <${Locks} of=${s.status.locks} />
    <main><${Screen} s=${s} query=${at.query} /></main>
    <nav class="bar" aria-label="Screens">${screens.map(([path, name]) => html`<a href=${'#/' + path} aria-current=${path === at.path ? 'page' : null}><${Icon} of=${path} />${name}</a>`)}</nav>
  </div>`;
}

function Header({ s, path }) {
  const found = trouble(s.status);
  const starting = !found.length && s.status.buses.some((b) => b.state === 'starting');
  const state = found.length ? found[0].state : starting ? 'none' : 'good';
  const text = found.length ? (found.length === 1 ? '1 thing needs attention' : found.length + ' things need attention') : starting ? 'starting' : 'all is well';
  return html`<header class="top">
    <a class="brand" href="#/"><svg viewBox="0 0 32 32" aria-hidden="true"><path d="M9 5v22M23 5v22M9 11h14M9 17.500h14" stroke="currentColor" stroke-width="2.800" stroke-linecap="round" fill="none"/></svg>
      <span><b>${s.status.site}</b><small>sluice</small></span></a>
    <nav class="tabs" aria-label="Screens">${screens.map(([p, name]) => html`<a href=${'#/' + p} aria-current=${p === path ? 'page' : null}>${name}</a>`)}</nav>
    <a class=${'verdict ' + state} href="#/" id="verdict"><${Shape} of=${state} /><span>${text}</span></a>
    <time class="clock">${clock(now())}</time>
  </header>`;
}

// Locks say on every screen that nothing is written, since when, by whom and why.
function Locks({ of }) {
  return of.map((l) => html`<p class="locked" role="status" key=${l.device} data-lock=${l.device || 'all'}><${Shape} of="warn" says="locked" />
    <span><b>${l.device ? `${l.device} is locked` : 'The field is locked'}</b>: nothing is written to ${l.device ? 'it' : 'any device'}${l.reason ? html` – <em>${l.reason}</em>` : ''}
    <small>since ${clock(l.since, true)}, by ${l.who}. “sluice unlock${l.device ? ' ' + l.device : ''}” ends it.</small></span></p>`);
}

function Boot({ s }) {
  return html`<div class="boot">${s.refusal
    ? html`<${Shape} of="warn" /><p>The gateway says: ${s.refusal}.</p><p>Close one of them: this page tries again by itself.</p>`
    : s.phase === 'lost'
    ? html`<${Shape} of="bad" /><p>The gateway does not answer. This page tries again by itself.</p>`
    : html`<span class="pulse"></span><p>Asking the gateway …</p>`}</div>`;
}

function Login() {
  const [error, fail] = useState('');
  const [busy, work] = useState(false);
  const enter = async (e) => {
    e.preventDefault();
    work(true);
    try {
      await api('/api/login', { password: e.target.elements.password.value });
      connect();
    } catch (reason) {
      fail(reason.message);
      e.target.elements.password.select();
    }
    work(false);
  };
  return html`<form class="login card" onSubmit=${enter}>
    <h1>sluice</h1><p>This gateway asks for its password.</p>
    <input type="password" name="password" autocomplete="current-password" autofocus aria-label="Password" aria-invalid=${!!error} />
    ${error && html`<p class="wrong" role="alert"><${Shape} of="bad" /> ${error}</p>`}
    <button class="main" disabled=${busy}>${busy ? 'One moment …' : 'Open'}</button></form>`;
}

const root = document.getElementById('app');
root.textContent = '';
render(html`<${App} />`, root);
