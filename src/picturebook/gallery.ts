/** A page to look through scenes: pictures with their boxes, captions and questions, in one HTML file that needs nothing else. */
import { categoryIndex } from './categories.ts'
import type { Credit } from './coco.ts'
import type { Exchange } from './questions.ts'
import type { Scene, SceneObject } from './scene.ts'
import { withoutRequest } from './short-answers.ts'
import type { Split } from './splits.ts'

export type GalleryItem = {
  file: string // shown as the title, without its ending
  scene: Scene
  png: Uint8Array
  captions: readonly string[]
  exchanges: readonly Exchange[]
}

export type GalleryOptions = {
  split: Split
  seed: number
  pictures: number // in the whole set, of which the page shows the first
  credits: readonly Credit[]
}

/** A page shows this many scenes at most: more would be slow to open. */
export const galleryScenes = 60

/** The page. It has no scripts and loads nothing; boxes show under the pointer, on focus, or always. */
export function galleryPage(items: readonly GalleryItem[], options: GalleryOptions): string {
  const shown = items.slice(0, galleryScenes)
  const { split, seed, pictures, credits } = options
  const which = shown.length < pictures ? `the first ${shown.length} of ${pictures} pictures` : countOf(pictures)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Picturebook, ${escapeHtml(split)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>Picturebook</h1>
<p>Split ${escapeHtml(split)}, seed ${seed}: ${which}</p>
<div>
<label><input type="checkbox" id="boxes"> Always show the boxes</label>
<label><input type="checkbox" id="questions" checked> Show the questions</label>
</div>
</header>
<main>
${shown.map(card).join('\n')}
</main>
<footer>
<h2>Drawings</h2>
<ul>
${credits.map(creditLine).join('\n')}
</ul>
<p>The drawings were rasterised, trimmed, scaled, mirrored, slightly relit and placed on backgrounds.</p>
</footer>
</body>
</html>
`
}

function card({ file, scene, png, captions, exchanges }: GalleryItem): string {
  const { side } = scene
  const [first = '', ...others] = captions
  return `<article>
<figure tabindex="0">
<img src="data:image/png;base64,${Buffer.from(png).toString('base64')}" width="${side}" height="${side}" alt="${escapeHtml(first)}">
<svg viewBox="0 0 ${side} ${side}" aria-hidden="true">
${scene.objects.map((object) => boxOf(object, side)).join('\n')}
</svg>
</figure>
<h2>${escapeHtml(first)}</h2>
<p class="about">${escapeHtml(file.replace(/\.png$/, ''))} · ${escapeHtml(scene.setting)}</p>
<ul>
${others.map((caption) => `<li>${escapeHtml(caption)}</li>`).join('\n')}
</ul>
<dl>
${exchanges.map(askedLine).join('\n')}
</dl>
</article>`
}

/** Without the request for a short answer, which would stand on the page a hundred times: the answer shows it. */
function askedLine({ skill, question, answer }: Exchange): string {
  return `<dt><span>${escapeHtml(skill)}</span>${escapeHtml(withoutRequest(question))}</dt><dd>${escapeHtml(answer)}</dd>`
}

/** A rectangle and its name: above the rectangle, or inside where there is no room above. Says how much a nearer thing leaves visible. */
function boxOf({ category, box, visible }: SceneObject, side: number): string {
  const letter = side / 23
  const color = `hsl(${(categoryIndex(category) * 137.5) % 360} 90% 62%)` // the golden angle keeps neighbours apart
  const above = box.y > letter * 1.2
  const end = box.x > side / 2 // near the right edge the name ends with the box, so that it is not cut
  const x = end ? box.x + box.width : box.x
  const y = above ? box.y - letter * 0.35 : box.y + letter
  const { width, height } = box
  const name = visible < 1 ? `${category}, ${Math.round(visible * 100)}% visible` : category
  return `<rect x="${box.x}" y="${box.y}" width="${width}" height="${height}" rx="${rounded(side / 96)}" stroke="${color}"/><text x="${x}" y="${rounded(y)}" font-size="${rounded(letter)}" stroke-width="${rounded(letter / 5)}" fill="${color}"${end ? ' text-anchor="end"' : ''}>${escapeHtml(name)}</text>`
}

function creditLine({ style: name, drawings, author, licence, url }: Credit): string {
  return `<li><code>${escapeHtml(name)}</code> <a href="${escapeHtml(url)}">${escapeHtml(drawings)}</a>, ${escapeHtml(author)}, ${escapeHtml(licence)}</li>`
}

function countOf(count: number): string {
  return `${count} ${count === 1 ? 'picture' : 'pictures'}`
}

function rounded(value: number): number {
  return Math.round(value * 100) / 100
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (letter) => `&#${letter.charCodeAt(0)};`)
}

const style = `
:root {
  color-scheme: light dark;
  --page: #f6f4ef; --card: #fff; --ink: #23211d; --soft: #6d675c; --line: #e4dfd4; --mark: #2b6cb0;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #171614; --card: #211f1c; --ink: #ece8df; --soft: #a39c8e; --line: #36332d; --mark: #8ab8ea; }
}
* { box-sizing: border-box; margin: 0; }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 0 auto; padding: 2rem 1.25rem; }
header { display: flex; flex-wrap: wrap; align-items: baseline; gap: .25rem 1.25rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.6rem; letter-spacing: -.01em; }
header p, .about, footer { color: var(--soft); }
header div { margin-left: auto; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
label { cursor: pointer; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 310px), 1fr)); gap: 1.25rem; align-items: start; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
figure { position: relative; aspect-ratio: 1; }
figure:focus-visible { outline: 3px solid var(--mark); outline-offset: -3px; }
img, svg { position: absolute; inset: 0; width: 100%; height: 100%; }
svg { opacity: 0; transition: opacity .15s; font-family: system-ui, sans-serif; font-weight: 600; }
figure:hover svg, figure:focus svg, body:has(#boxes:checked) svg { opacity: 1; }
rect { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
text { paint-order: stroke; stroke: #000b; stroke-linejoin: round; }
article > :not(figure) { margin: 0 1rem; }
article > h2 { font-size: 1.05rem; line-height: 1.35; margin-top: .9rem; }
.about { font-size: .85rem; }
article > ul { padding: .5rem 0 .75rem; list-style: none; }
article > dl { border-top: 1px solid var(--line); padding: .6rem 0 .9rem; }
body:not(:has(#questions:checked)) dl { display: none; }
dt:not(:first-child) { margin-top: .5rem; }
dt span { float: right; margin-left: .6rem; color: var(--soft); font-size: .78rem; line-height: 1.9; }
dd { color: var(--mark); }
footer { margin-top: 2.5rem; font-size: .9rem; }
footer h2 { font-size: 1rem; }
footer ul { padding-left: 1.1rem; }
a { color: inherit; }
@media print { article { break-inside: avoid; } }
`
