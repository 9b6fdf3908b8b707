// The site file as it is, with what check finds in it.
import { html, Card, Failed, Loading, Shape, plural, useAsked } from './ui.js';

export function Site() {
  const { answer, error, again } = useAsked('/api/site', 0);
  if (error) return html`<${Card} title="Site file"><${Failed} what="The site file" error=${error.message} again=${again} /><//>`;
  if (!answer) return html`<${Loading} what="the site file" />`;
  const at = {};
  for (const f of answer.findings) if (f.file === answer.file) (at[f.line] ||= []).push(f);
  const elsewhere = answer.findings.filter((f) => f.file !== answer.file);
  const wrong = answer.findings.filter((f) => f.severity === 'error').length;
  return html`<${Card} title="Site file" aside=${html`<code>${answer.file}</code>`} flush>
    <p class="pad verdict-line"><${Shape} of=${wrong ? 'bad' : answer.findings.length ? 'warn' : 'good'} />
      ${wrong ? `${plural(wrong, 'error')}: the gateway runs with what it read at its start` : answer.findings.length ? plural(answer.findings.length, 'warning') : 'no findings'}
      ${answer.changed ? ' · changed on disk since the gateway read it' : ''}</p>
    ${elsewhere.map((f) => html`<${Finding} f=${f} />`)}
    <pre class="source"><code>${answer.text.split('\n').map((line, i) => html`<span class=${'code' + (at[i + 1] ? ' marked' : '')}><i>${i + 1}</i>${line + '\n'}</span>${(at[i + 1] || []).map((f) => html`<${Finding} f=${f} />`)}`)}</code></pre><//>`;
}

function Finding({ f }) {
  return html`<span class=${'finding ' + (f.severity === 'error' ? 'bad' : 'warn')}><${Shape} of=${f.severity === 'error' ? 'bad' : 'warn'} says=${f.severity} /> ${f.text}${f.suggestion ? ` – ${f.suggestion}` : ''}</span>`;
}
