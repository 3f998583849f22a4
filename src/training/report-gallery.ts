/** The gallery of a report: each picture that the model was asked about, the question, and what it said over the course of the run. */

import { escapeHtml } from './report-chart.ts'
import type { RunLog } from './run-log.ts'

/** The samples as a section of the page, or nothing when the run asked none. `pictures`: PNG bytes by their names in the log. */
export function gallerySection(
  { questions, answers }: RunLog,
  { pictures }: { pictures: ReadonlyMap<string, Uint8Array> },
): string {
  if (questions.length === 0 || answers.length === 0) return ''
  const cards = questions.map((question, index) => {
    const bytes = question.picture === undefined ? undefined : pictures.get(question.picture)
    const skill = question.skill === undefined ? '' : `<small>${escapeHtml(question.skill)}</small>`
    return `<article>${picture(bytes, question.sample)}<div>
<p class="question">${escapeHtml(question.question)} ${skill}</p>
<p class="reference"><span>reference</span> ${escapeHtml(question.reference)}</p>
<ol>${stretches(answers, index).reverse().map(answerItem).join('')}</ol></div></article>`
  })
  return `<section class="gallery"><h2>Samples</h2>
<p>What the model said by itself about pictures that it does not learn from, newest first${answers.some(({ accuracy }) => Object.keys(accuracy).length > 0) ? ': ✓ right, ✗ wrong' : ''}.</p>
<div class="cards">${cards.join('\n')}</div></section>`
}

/** One answer, and the interviews from `from` to `to` that all gave it. */
type Stretch = {
  readonly text: string
  readonly right: boolean | undefined
  readonly from: number
  readonly to: number
}

/** What was said about one sample, the same answer several times in a row told once. */
export function stretches(answers: RunLog['answers'], index: number): Stretch[] {
  const found: Stretch[] = []
  for (const { step, answers: given } of answers) {
    const one = given[index]
    const last = found.at(-1)
    if (one === undefined) continue
    if (last !== undefined && last.text === one.text && last.right === one.right) {
      found[found.length - 1] = { ...last, to: step }
    } else found.push({ text: one.text, right: one.right, from: step, to: step })
  }
  return found
}

function answerItem({ text, right, from, to }: Stretch): string {
  const mark =
    right === undefined ? '' : right ? '<b class="right" title="right">✓</b>' : '<b class="wrong" title="wrong">✗</b>'
  const steps = from === to ? `${from}` : `${from}–${to}`
  const said = text === '' ? '<em>nothing</em>' : escapeHtml(text)
  return `<li><span>${steps}</span>${mark}<q>${said}</q></li>`
}

function picture(bytes: Uint8Array | undefined, name: string): string {
  if (bytes === undefined) return '<i class="none">no picture</i>'
  const data = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64')
  return `<img alt="${escapeHtml(name)}" src="data:image/png;base64,${data}">`
}

export const galleryStyle = `
.gallery > p { margin: 2px 0 10px; color: var(--soft); font-size: 13px }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 14px }
article { display: grid; grid-template-columns: 128px minmax(0, 1fr); gap: 14px; padding: 14px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
article img, article .none { width: 128px; border-radius: 6px }
article img { height: auto; image-rendering: pixelated }
article .none { display: grid; height: 128px; place-items: center; color: var(--soft); background: var(--page); font-size: 13px }
article p { margin: 0; overflow-wrap: anywhere }
.question { font-weight: 600 }
.question small { padding: 1px 7px; color: var(--soft); border: 1px solid var(--line); border-radius: 9px; font-weight: 400; white-space: nowrap }
.reference { color: var(--soft); font-size: 14px }
.reference span { font-size: 12px; text-transform: uppercase; letter-spacing: .04em }
article ol { max-height: 168px; margin: 6px 0 0; padding: 0; overflow-y: auto; list-style: none; font-size: 14px }
article li { display: grid; grid-template-columns: minmax(76px, auto) 16px 1fr; gap: 6px; padding: 2px 0; border-top: 1px solid var(--line) }
article li span { color: var(--soft); font-size: 12px; line-height: 21px; font-variant-numeric: tabular-nums }
article li q { grid-column: 3; quotes: none; overflow-wrap: anywhere }
.right { color: var(--c2) }
.wrong { color: var(--c1) }
`
