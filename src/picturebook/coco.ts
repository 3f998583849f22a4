/** Scenes as COCO JSON (cocodataset.org, section Data format): `captions_*.json` and `instances_*.json`, made piece by piece. */
import { captions } from './captions.ts'
import { categories, categoryIndex, type Style } from './categories.ts'
import { iconPackages } from './drawings.ts'
import type { Scene } from './scene.ts'
import type { Split } from './splits.ts'

/** A scene and the number that its file name, its rows and its annotations share. */
export type NumberedScene = { id: number; file: string /* name inside the image folder */; scene: Scene }

/** A list that can be gone through again and again: making scenes anew costs less than keeping them. */
export type NumberedScenes = () => Iterable<NumberedScene>

/** What a set of pictures says about itself. */
export type PictureSet = { split: Split; seed: number; styles: readonly Style[] }

export type Credit = { style: Style; drawings: string; author: string; licence: string; url: string; package: string }

type Source = { drawings: string; author: string; licence: Licence; url: string }
type Licence = keyof typeof licenceAddresses

const licenceAddresses = {
  'Apache-2.0': 'https://www.apache.org/licenses/LICENSE-2.0',
  MIT: 'https://opensource.org/license/mit',
  'CC-BY-4.0': 'https://creativecommons.org/licenses/by/4.0/',
} as const
const licenceNames = Object.keys(licenceAddresses) as Licence[]

/** The table of CREDITS.md, for files that leave this package with pictures in them. */
const sources: Readonly<Record<Style, Source>> = {
  noto: {
    drawings: 'Noto Emoji',
    author: 'Google Inc',
    licence: 'Apache-2.0',
    url: 'https://github.com/googlefonts/noto-emoji',
  },
  'noto-v1': {
    drawings: 'Noto Emoji, version 1',
    author: 'Google Inc',
    licence: 'Apache-2.0',
    url: 'https://github.com/googlefonts/noto-emoji',
  },
  fluent: {
    drawings: 'Fluent Emoji',
    author: 'Microsoft Corporation',
    licence: 'MIT',
    url: 'https://github.com/microsoft/fluentui-emoji',
  },
  emojione: {
    drawings: 'EmojiOne 2',
    author: 'Emoji One',
    licence: 'CC-BY-4.0',
    url: 'https://github.com/EmojiTwo/emojitwo',
  },
  twemoji: {
    drawings: 'Twemoji',
    author: 'Twitter',
    licence: 'CC-BY-4.0',
    url: 'https://github.com/jdecked/twemoji',
  },
}

/** Whose drawings the styles are, and under which licences. */
export function creditsOf(styles: readonly Style[]): Credit[] {
  return styles.map((style) => ({ style, ...sources[style], package: iconPackages[style] }))
}

/** The text of `captions_<split>.json` in pieces: five captions per picture, ids from 1. */
export function* cocoCaptions(scenes: NumberedScenes, about: PictureSet): Generator<string> {
  yield* opening(scenes, about)
  yield* list('annotations', captionRows(scenes))
  yield '\n}\n'
}

/**
 * The text of `instances_<split>.json` in pieces: a box in pixels for every object, ids from 1.
 *
 * `bbox` holds the whole object, also where a nearer one covers it; `visibility`, which COCO has no name for, is the
 * share of the box that no nearer box covers.
 */
export function* cocoInstances(scenes: NumberedScenes, about: PictureSet): Generator<string> {
  yield* opening(scenes, about)
  yield* list('annotations', boxRows(scenes))
  yield ',\n'
  yield* list('categories', categoryRows())
  yield '\n}\n'
}

function* opening(scenes: NumberedScenes, about: PictureSet): Generator<string> {
  const { split, seed, styles } = about
  const info = {
    description: `Picturebook scenes, split ${split}, seed ${seed}`,
    contributor: 'llava-ts',
    changes: 'The drawings were rasterised, trimmed, scaled, mirrored, slightly relit and placed on backgrounds.',
    credits: creditsOf(styles),
  }
  yield `{\n"info": ${JSON.stringify(info)},\n`
  yield* list('licenses', licenceRows(styles))
  yield ',\n'
  yield* list('images', imageRows(scenes))
  yield ',\n'
}

/** `"name": [...]`, one row per line. */
function* list(name: string, rows: Iterable<object>): Generator<string> {
  yield `"${name}": [`
  let separator = '\n'
  for (const row of rows) {
    yield `${separator}${JSON.stringify(row)}`
    separator = ',\n'
  }
  yield '\n]'
}

function* licenceRows(styles: readonly Style[]): Generator<object> {
  const used = new Set(styles.map((style) => sources[style].licence))
  for (const name of licenceNames) if (used.has(name)) yield { id: licenceId(name), name, url: licenceAddresses[name] }
}

/** A picture may hold drawings under several licences, so it has a list where COCO has one `license`. */
function* imageRows(scenes: NumberedScenes): Generator<object> {
  for (const { id, file, scene } of scenes()) {
    const licenses = [...new Set(scene.objects.map(({ style }) => licenceId(sources[style].licence)))].sort()
    yield { id, file_name: file, width: scene.side, height: scene.side, licenses }
  }
}

function* captionRows(scenes: NumberedScenes): Generator<object> {
  let id = 0
  for (const { id: image_id, scene } of scenes()) {
    for (const caption of captions(scene, { seed: 0 })) yield { id: ++id, image_id, caption }
  }
}

/** Ids start at 1: the evaluation code of COCO takes 0 for "nothing matched". */
function* boxRows(scenes: NumberedScenes): Generator<object> {
  let id = 0
  for (const { id: image_id, scene } of scenes()) {
    for (const { category, style, box, visible } of scene.objects) {
      const bbox = [box.x, box.y, box.width, box.height]
      const area = box.width * box.height
      const visibility = Math.round(visible * 10_000) / 10_000
      yield { id: ++id, image_id, category_id: categoryId(category), bbox, area, iscrowd: 0, visibility, style }
    }
  }
}

function* categoryRows(): Generator<object> {
  for (const { name, group } of categories) yield { id: categoryId(name), name, supercategory: group }
}

function categoryId(name: string): number {
  return categoryIndex(name) + 1
}

function licenceId(name: Licence): number {
  return licenceNames.indexOf(name) + 1
}
