// What all screens are made of: elements, shapes of states, words for numbers.
const { h, render, Fragment } = window.preact;
const { useState, useEffect, useRef, useMemo, useLayoutEffect } = window.preactHooks;
export const html = window.htm.bind(h);
export { render, Fragment, useState, useEffect, useRef, useMemo, useLayoutEffect };

// Shape tells a state by its form; the colour only repeats it.
const shapes = {
  good: html`<circle cx="8" cy="8" r="5" />`,
  warn: html`<path d="M8 2.200 14.600 13.800H1.400Z" />`,
  bad: html`<path d="M3 3h10v10H3Z" />`,
  none: html`<circle cx="8" cy="8" r="4.200" fill="none" stroke="currentColor" stroke-width="1.600" />`,
};
const words = { good: 'well', warn: 'needs attention', bad: 'down', none: 'not known yet' };

export function Shape({ of, says }) {
  return html`<svg class=${'shape ' + of} viewBox="0 0 16 16" role="img" aria-label=${says || words[of]}>${shapes[of]}</svg>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p>${children && html`<p>${children}</p>`}</div>`;
}

export function Loading({ what }) {
  return html`<div class="empty" aria-busy="true"><span class="pulse"></span><p>Loading ${what} …</p></div>`;
}

export function Failed({ what, error, again }) {
  return html`<div class="empty"><${Shape} of="bad" /><p class="empty-title">${what} can’t be shown</p><p>${error}</p>
    ${again && html`<button onClick=${again}>Try again</button>`}</div>`;
}

export function Card({ title, aside, children, flush }) {
  return html`<section class=${'card' + (flush ? ' flush' : '')}>
    ${title && html`<header><h2>${title}</h2>${aside && html`<span class="aside">${aside}</span>`}</header>`}${children}</section>`;
}

// Figure is one number with its name.
export function Figure({ name, value, unit, note, state }) {
  return html`<div class="figure"><span class="figure-name">${state && html`<${Shape} of=${state} />`}${name}</span>
    <span class="figure-value">${value}${unit && html` <small>${unit}</small>`}</span>
    <span class="figure-note">${note || '\u00a0'}</span></div>`;
}

// span is a length of time in words: 3 s, 2 min, 5 h, 4 d.
export function span(ms) {
  if (ms == null || isNaN(ms)) return '–';
  const s = Math.max(0, ms) / 1000;
  if (s === 0) return '0 s';
  if (s < 10) return s.toFixed(1) + ' s';
  if (s < 100) return Math.round(s) + ' s';
  if (s < 100 * 60) return Math.round(s / 60) + ' min';
  if (s < 48 * 3600) return Math.round(s / 3600) + ' h';
  return Math.round(s / 86400) + ' d';
}

export function ago(now, time) {
  if (!time) return '–';
  return span(now - (typeof time === 'number' ? time : Date.parse(time)));
}

// count is a number with its digits in groups, short where it is large.
export function count(n) {
  if (n == null) return '–';
  if (n >= 1e7) return (n / 1e6).toFixed(1) + ' M';
  return Math.round(n).toLocaleString('en').replaceAll(',', '\u202f');
}

export function rate(n) {
  if (n == null) return '–';
  return n >= 100 ? count(n) : n >= 10 ? n.toFixed(1) : n.toFixed(2);
}

export function size(bytes) {
  return bytes < 1e6 ? (bytes / 1e3).toFixed(0) + ' kB' : (bytes / 1e6).toFixed(1) + ' MB';
}

export const plural = (n, one, more) => `${count(n)} ${n === 1 ? one : more || one + 's'}`;

let zone;
export function setZone(name) {
  try { new Intl.DateTimeFormat('en', { timeZone: name || undefined }); zone = name || undefined; } catch { zone = undefined; }
}

export function clock(time, withDate) {
  const t = new Date(time);
  const options = { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZone: zone };
  if (withDate || Math.abs(Date.now() - t) > 20 * 3600e3) Object.assign(options, { month: 'short', day: '2-digit' });
  return new Intl.DateTimeFormat('en-GB', options).format(t);
}

// api asks the gateway; its errors are in the gateway's words.
export async function api(path, body) {
  const options = body === undefined ? {} : { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw Object.assign(new Error('the gateway does not answer'), { status: 0 });
  }
  let content = null;
  try { content = await answer.json(); } catch { /* an error without words */ }
  if (!answer.ok) throw Object.assign(new Error(content?.error || `${answer.status} ${answer.statusText}`), { status: answer.status });
  return content;
}

// useAsked keeps the answer to a question, asked again every so often.
export function useAsked(path, every) {
  const [state, set] = useState({});
  const ask = () => api(path).then(
    (answer) => set({ answer }),
    (error) => set((s) => (s.answer && error.status === 0 ? s : { error })));
  useEffect(() => {
    ask();
    if (!every) return;
    const timer = setInterval(() => document.hidden || ask(), every);
    return () => clearInterval(timer);
  }, [path]);
  return { ...state, again: ask };
}
