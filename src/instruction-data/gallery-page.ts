/** A page to look through instruction data: pictures with boxes, conversations, what validators found, and what was rejected. One HTML file, no scripts. */

import type { NamedBox } from './symbolic-picture.ts'

export type GalleryRow = {
  readonly id: string
  readonly image: string | undefined // file name
  /** JPEG bytes and size of the picture; none when there is no picture or it cannot be read. */
  readonly picture: { readonly jpeg: Uint8Array } | undefined
  readonly trouble?: string | undefined // why there is no picture
  readonly turns: readonly { readonly from: string; readonly value: string }[]
  readonly type?: string | undefined
  readonly verdicts: readonly { readonly validator: string; readonly problem: string }[]
  readonly captions: readonly string[]
  readonly boxes: readonly NamedBox[]
}

export type GalleryReject = {
  readonly id: string
  readonly type?: string | undefined
  readonly reason: string
  readonly text?: string | undefined
}

export type GalleryPage = {
  readonly title: string
  readonly rows: readonly GalleryRow[]
  readonly rejects: readonly GalleryReject[]
  readonly total: { readonly rows: number; readonly rejects: number }
}

export function instructionGallery({ title, rows, rejects, total }: GalleryPage): string {
  const shown = `${rows.length} of ${total.rows} rows${total.rejects > 0 ? `, ${rejects.length} of ${total.rejects} rejects` : ''}`
  const rejected =
    rejects.length === 0 ? '' : `<h2>Rejected</h2>\n<div class="rejects">${rejects.map(rejectCard).join('\n')}</div>`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${escapeHtml(title)}</h1>
<p>${escapeHtml(shown)}</p>
<label><input type="checkbox" id="boxes" checked> Boxes</label>
<label><input type="checkbox" id="told"> What the teacher was told</label>
</header>
<main>
${rows.map(rowCard).join('\n')}
</main>
${rejected}
</body>
</html>
`
}

function rowCard({ id, image, picture, trouble, turns, type, verdicts, captions, boxes }: GalleryRow): string {
  const tags = [...(type === undefined ? [] : [`<span class="type ${escapeHtml(type)}">${escapeHtml(type)}</span>`])]
  const warnings = verdicts.map(
    ({ validator, problem }) => `<li><b>${escapeHtml(validator)}</b> ${escapeHtml(problem)}</li>`,
  )
  const said = turns.map(({ from, value }) => {
    const text = value.replaceAll('<image>', '').trim()
    return `<p class="${from === 'human' ? 'question' : from === 'gpt' ? 'answer' : 'system'}">${escapeHtml(text)}</p>`
  })
  const told = captions.map((caption) => `<li>${escapeHtml(caption)}</li>`)
  return `<article>
${figure({ image, picture, trouble, boxes })}
<p class="about">${tags.join(' ')} ${escapeHtml(id)}</p>
${warnings.length === 0 ? '' : `<ul class="warnings">${warnings.join('')}</ul>`}
<div class="talk">${said.join('\n')}</div>
${told.length === 0 ? '' : `<ul class="told">${told.join('')}</ul>`}
</article>`
}

function figure({
  image,
  picture,
  trouble,
  boxes,
}: Pick<GalleryRow, 'image' | 'picture' | 'trouble' | 'boxes'>): string {
  if (picture === undefined) return `<p class="none">${escapeHtml(trouble ?? 'no picture')}</p>`
  const source = `data:image/jpeg;base64,${Buffer.from(picture.jpeg).toString('base64')}`
  return `<figure><img src="${source}" alt="${escapeHtml(image ?? '')}">${boxes.map(boxMark).join('')}</figure>`
}

/** A rectangle in shares of the picture, so that it fits whatever size the picture is shown in. */
function boxMark({ category, box: [x1, y1, x2, y2] }: NamedBox): string {
  const percent = (share: number) => `${Math.round(share * 1000) / 10}%`
  const hue = [...category].reduce((sum, letter) => sum * 31 + letter.charCodeAt(0), 7) % 360
  return `<span class="box" style="left:${percent(x1)};top:${percent(y1)};width:${percent(x2 - x1)};height:${percent(y2 - y1)};--hue:${hue}"><i${y1 < 0.06 ? ' class="inside"' : ''}>${escapeHtml(category)}</i></span>`
}

function rejectCard({ id, type, reason, text }: GalleryReject): string {
  return `<article><p class="about">${type === undefined ? '' : `<span class="type ${escapeHtml(type)}">${escapeHtml(type)}</span>`} ${escapeHtml(id)}</p>
<p class="reason">${escapeHtml(reason)}</p>${text === undefined ? '' : `<pre>${escapeHtml(text)}</pre>`}</article>`
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`)
}

const style = `
:root { color-scheme: light dark; --page: #f5f5f2; --card: #fff; --ink: #22252a; --soft: #666b73; --line: #e0e1e4; --ask: #eef1f5; --warn: #9a4b00; --warnbg: #fff3e0; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15171a; --card: #1e2125; --ink: #e7e9ec; --soft: #9aa1aa; --line: #32363c; --ask: #2a2f36; --warn: #ffb870; --warnbg: #3a2a14; }
}
* { box-sizing: border-box; margin: 0; }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1600px; margin: 0 auto; padding: 1.75rem 1.25rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1.25rem; margin-bottom: 1.25rem; }
header p { color: var(--soft); margin-right: auto; }
h1 { font-size: 1.5rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
label { cursor: pointer; }
main, .rejects { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1.25rem; align-items: start; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; padding-bottom: 1rem; }
figure { position: relative; line-height: 0; }
img { width: 100%; }
.none { padding: 1rem; color: var(--soft); border-bottom: 1px solid var(--line); }
.box { position: absolute; border: 2px solid hsl(var(--hue) 85% 55%); border-radius: 2px; display: none; }
.box i { position: absolute; left: -2px; bottom: 100%; background: hsl(var(--hue) 85% 35%); color: #fff; font: 600 11px/1.35 system-ui, sans-serif; padding: 0 .3em; white-space: nowrap; }
.box i.inside { bottom: auto; top: 0; left: 0; }
body:has(#boxes:checked) .box { display: block; }
.about, .reason { padding: .7rem 1rem 0; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }
.type { border: 1px solid currentColor; border-radius: 99px; padding: .05rem .55rem; font-size: .78rem; margin-right: .4rem; color: #3d6fb4; }
.type.detailed-description { color: #2f8f5b; }
.type.complex-reasoning { color: #a35ab8; }
.warnings { list-style: none; margin: .6rem 1rem 0; padding: .45rem .7rem; background: var(--warnbg); color: var(--warn); border-radius: 6px; font-size: .85rem; overflow-wrap: anywhere; }
.talk { padding: .7rem 1rem 0; display: grid; gap: .45rem; }
.talk p { white-space: pre-line; overflow-wrap: anywhere; }
.question { background: var(--ask); border-radius: 10px 10px 10px 2px; padding: .4rem .7rem; justify-self: start; font-weight: 550; }
.answer { padding: 0 .7rem; }
.system { color: var(--soft); font-style: italic; }
.told { display: none; margin: .8rem 1rem 0; padding: .6rem 0 0 1.1rem; border-top: 1px solid var(--line); color: var(--soft); font-size: .88rem; }
body:has(#told:checked) .told { display: block; }
.reason { color: var(--warn); }
pre { margin: .6rem 1rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 12px/1.45 ui-monospace, monospace; color: var(--soft); max-height: 16rem; overflow: auto; }
@media print { article { break-inside: avoid; } }
`
