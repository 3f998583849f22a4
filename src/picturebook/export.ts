/** The picturebook as a data set: pictures, COCO JSON, LLaVA JSON, questions and a page to look through, scene by scene. */
import { encodePng } from '../image/encode.ts'
import { captions } from './captions.ts'
import { heldOutStyle, type Style, trainingStyles } from './categories.ts'
import { cocoCaptions, cocoInstances, creditsOf, type NumberedScene, type NumberedScenes } from './coco.ts'
import { type Drawings, loadDrawings } from './drawings.ts'
import { type GalleryItem, galleryPage, galleryScenes } from './gallery.ts'
import { toLlavaJson } from './llava-json.ts'
import { type Exchange, makeConversation, makeExchange, skills } from './questions.ts'
import { renderScene } from './rendering.ts'
import { makeScene, type Scene } from './scene.ts'
import type { Split } from './splits.ts'

/** Stores a file under a name relative to the data set, such as `images/000000.png`. Pieces are made when asked for. */
export type WriteFile = (name: string, pieces: Iterable<string | Uint8Array>) => Promise<void>

export type ExportOptions = {
  readonly count: number // scenes, at most a million
  readonly seed?: number // other scenes of the same split, 0 unless told
  readonly split?: Split
  readonly styles?: readonly Style[] // those for training unless told; the held-out one for its split
  readonly objects?: readonly [number, number]
  /** Share of the scenes of two or more objects in which one partly covers another, 0 unless told. */
  readonly overlap?: number
  readonly side?: number // S, pixels
  /** Exchanges in each conversation of `llava.json`. */
  readonly turns?: number
  /** In the styles of the scenes; loaded unless given. */
  readonly drawings?: Drawings
  readonly signal?: AbortSignal | undefined
  /** Told after every picture. */
  readonly onProgress?: (done: { readonly pictures: number }) => void
}

export type ExportSummary = {
  readonly split: Split
  readonly seed: number
  readonly side: number
  readonly styles: readonly Style[]
  readonly pictures: number
  readonly objects: number
  readonly captions: number
  readonly questions: number
}

/** So far apart are the scenes of two seeds. */
const scenesPerSeed = 1_000_000_000
const mostScenes = 1_000_000
const mostSeeds = 1_000_000
/** Sprites are kept for the next scene until they fill this much memory, in bytes. */
const spriteMemory = 2 ** 26
/** Text is handed over in pieces of about this many characters. */
const pieceLength = 65_536

/**
 * Makes all files of a data set and hands them to `write`, one after the other. Memory does not grow with the number of scenes: each text file goes
 * through the scenes again, because a scene takes less time to make than room to keep. Equal options give equal bytes.
 * @throws RangeError for impossible options; the reason of `signal` when it fires
 */
export async function exportPicturebook(write: WriteFile, options: ExportOptions): Promise<ExportSummary> {
  const { count, seed = 0, split = 'train', objects = [1, 4], overlap = 0, side = 96, turns = 4, signal } = options
  const styles = options.styles ?? (split === 'held-out-style' ? [heldOutStyle] : trainingStyles)
  expectWhole('scenes', { value: count, from: 1, to: mostScenes })
  expectWhole('seed', { value: seed, from: 0, to: mostSeeds })
  expectWhole('turns', { value: turns, from: 1, to: 100 })

  function* scenes(): Generator<NumberedScene> {
    for (let id = 0; id < count; id++) {
      signal?.throwIfAborted()
      const scene = makeScene(seed * scenesPerSeed + id, { side, objects, overlap, split, styles })
      yield { id, file: `${String(id).padStart(6, '0')}.png`, scene }
    }
  }
  const talk = (scene: Scene) => makeConversation(scene, { seed: 0, turns, split })
  const test = (scene: Scene) => questionsAbout(scene, split)
  scenes().next() // impossible options are refused before the drawings are loaded
  const drawings = options.drawings ?? (await loadDrawings({ side, styles }))
  const about = { split, seed, styles }
  const gallery: GalleryItem[] = []
  let [objectCount, captionCount, questionCount] = [0, 0, 0]

  for (const { id, file, scene } of scenes()) {
    const png = await encodePng(draw(scene, drawings))
    await write(`images/${file}`, [png])
    const told = captions(scene, { seed: 0 })
    const asked = test(scene)
    if (id < galleryScenes) gallery.push({ file, scene, png, captions: told, exchanges: asked })
    objectCount += scene.objects.length
    captionCount += told.length
    questionCount += asked.length
    options.onProgress?.({ pictures: id + 1 })
  }
  await write(`captions_${split}.json`, inPieces(cocoCaptions(scenes, about)))
  await write(`instances_${split}.json`, inPieces(cocoInstances(scenes, about)))
  await write('llava.json', inPieces(llavaRows(scenes, talk)))
  await write('questions.jsonl', inPieces(questionRows(scenes, test)))
  const made = { pictures: count, objects: objectCount, captions: captionCount, questions: questionCount }
  const summary = { split, seed, side, styles, ...made }
  await write('gallery.html', [galleryPage(gallery, { ...summary, credits: creditsOf(styles) })])
  signal?.throwIfAborted()
  return summary
}

/** One question of every skill that the scene allows. */
function questionsAbout(scene: Scene, split: Split): Exchange[] {
  return skills.flatMap((skill) => makeExchange(scene, { seed: 0, skill, split }) ?? [])
}

function draw(scene: Scene, drawings: Drawings): ReturnType<typeof renderScene> {
  const spriteBytes = 4 * (scene.side / 3) ** 2
  if (drawings.sprites.size * spriteBytes > spriteMemory) drawings.sprites.clear()
  return renderScene(scene, drawings)
}

/** A list of conversations, one row per line. Ids and file names follow LLaVA's: `000000` and `000000.png`. */
function* llavaRows(scenes: NumberedScenes, talk: (scene: Scene) => readonly Exchange[]): Generator<string> {
  let separator = '[\n'
  for (const { file, scene } of scenes()) {
    yield `${separator}${JSON.stringify(toLlavaJson(scene, talk(scene), { id: stem(file), image: file }))}`
    separator = ',\n'
  }
  yield '\n]\n'
}

/** The question file of LLaVA's evaluations, with what the answer must come down to and the answer in full. */
function* questionRows(scenes: NumberedScenes, test: (scene: Scene) => readonly Exchange[]): Generator<string> {
  let question_id = 0
  for (const { file, scene } of scenes()) {
    for (const { question, skill, expected, answer } of test(scene)) {
      yield `${JSON.stringify({ question_id, image: file, text: question, skill, expected, answer })}\n`
      question_id += 1
    }
  }
}

function* inPieces(texts: Iterable<string>): Generator<string> {
  let piece = ''
  for (const text of texts) {
    piece += text
    if (piece.length < pieceLength) continue
    yield piece
    piece = ''
  }
  if (piece !== '') yield piece
}

function stem(file: string): string {
  return file.replace(/\.png$/, '')
}

function expectWhole(what: string, { value, from, to }: { value: number; from: number; to: number }): void {
  if (Number.isSafeInteger(value) && value >= from && value <= to) return
  throw new RangeError(
    `Cannot export the picturebook: found ${value} as ${what}, expected a whole number from ${from} to ${to}`,
  )
}
