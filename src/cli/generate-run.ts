/** The folder of a `llava generate` run: its settings, the pictures in words, the answers so far, and the data set they make. */

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { type CaptionsInput, readCaptions } from '../instruction-data/captions-input.ts'
import { checked, gatheredWrites, parseJson, readJsonLines, saidIfFull, unreadable } from '../instruction-data/lines.ts'
import { pictureProblem, sizeOfPicture } from '../instruction-data/picture-file.ts'
import { isInShard, type Plan, type Task, tasksOf } from '../instruction-data/requests.ts'
import type { PictureOrProblem, SymbolicPicture } from '../instruction-data/symbolic-picture.ts'

/** What the answers of a run depend on, by the names of the options. */
export type RunSettings = Readonly<Record<string, string>>

export const runFiles = {
  settings: 'run.json',
  pictures: 'pictures.jsonl',
  summary: 'pictures.json',
  skipped: 'skipped.jsonl',
  answers: 'answers.jsonl',
  data: 'data',
  parts: 'parts', // only while captions and boxes are put together
} as const

const summarySchema = z.object({
  pictures: z.number(),
  captions: z.number(),
  boxes: z.number(),
  skipped: z.number(),
  firstProblem: z.string().nullable(),
  categories: z.array(z.string()),
  licenses: z.record(z.string(), z.number()),
})
/** The pictures of a run, and those that could not be used. */
export type PictureSummary = z.infer<typeof summarySchema>

export type Input = {
  readonly captions: string
  readonly form: CaptionsInput['form']
  readonly instances: string | undefined
  readonly images: string | undefined
}

/**
 * Makes the folder of a run, or opens one of the same settings.
 * @throws Error that names the settings in which a run that is there differs
 */
export async function openRunFolder(folder: string, settings: RunSettings): Promise<void> {
  await mkdir(folder, { recursive: true })
  const path = join(folder, runFiles.settings)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined
    throw error
  })
  if (text === undefined) {
    await writeFileAtomically(path, async (handle) => handle.writeFile(`${JSON.stringify(settings, undefined, 2)}\n`))
    return
  }
  const before = checked(z.record(z.string(), z.string()), { value: parseJson(text, path), where: path })
  const names = [...new Set([...Object.keys(before), ...Object.keys(settings)])]
  const differing = names.filter((name) => before[name] !== settings[name])
  if (differing.length === 0) return
  const list = differing.map((name) => `${name} ${settings[name] ?? 'none'} (was ${before[name] ?? 'none'})`).join(', ')
  throw new Error(
    `Cannot use --out ${folder}: it holds a run with other settings, now ${list}; expected the same ones or another folder`,
  )
}

/** The SHA-256 of a file, in hexadecimal digits. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece)
  } catch (cause) {
    throw unreadable(path, cause as NodeJS.ErrnoException)
  }
  return hash.digest('hex')
}

/**
 * Puts the pictures of the input into words, once for all runs in the folder.
 * @throws SyntaxError for broken files, Error when no picture can be used
 */
export async function preparePictures(
  folder: string,
  {
    input,
    onBegin,
    onRecord,
    onPicture,
    signal,
  }: {
    input: Input
    onBegin?: () => void
    /** Entries of captions and boxes, before they are put together. */
    onRecord?: (count: number) => void
    onPicture?: (count: number) => void
    signal?: AbortSignal
  },
): Promise<PictureSummary> {
  await clearHalves(folder)
  const summaryPath = join(folder, runFiles.summary)
  const ready = await readFile(summaryPath, 'utf8').catch(() => undefined)
  if (ready !== undefined) return checked(summarySchema, { value: parseJson(ready, summaryPath), where: summaryPath })
  onBegin?.()
  const [categories, licenses] = [new Set<string>(), new Map<string, number>()]
  const counts = { pictures: 0, captions: 0, boxes: 0, skipped: 0 }
  let firstProblem: string | null = null
  const skippedPath = join(folder, runFiles.skipped)
  await writeFileAtomically(join(folder, runFiles.pictures), async (picturesFile) =>
    writeFileAtomically(skippedPath, async (skippedFile) => {
      const [pictures, skipped] = [gatheredWrites(picturesFile), gatheredWrites(skippedFile)]
      const records = (count: number) => {
        signal?.throwIfAborted()
        onRecord?.(count)
      }
      for await (const found of withPictureFiles(readInput(input, { folder, onRecord: records }), input.images)) {
        signal?.throwIfAborted()
        if ('problem' in found) {
          firstProblem ??= found.problem
          counts.skipped += 1
          await skipped.add(`${JSON.stringify(found)}\n`)
          continue
        }
        const { picture } = found
        counts.pictures += 1
        counts.captions += picture.captions.length
        counts.boxes += picture.boxes.length
        for (const { category } of picture.boxes) categories.add(category)
        for (const license of picture.licenses ?? ['unknown']) licenses.set(license, (licenses.get(license) ?? 0) + 1)
        await pictures.add(`${JSON.stringify(picture)}\n`)
        onPicture?.(counts.pictures)
      }
      await pictures.end()
      await skipped.end()
    }),
  ).catch((error) => {
    const path = join(folder, runFiles.pictures)
    throw saidIfFull(error, { path, kept: 'with more room the same command begins anew' })
  })
  if (counts.pictures === 0) {
    throw new Error(
      `Cannot generate from ${input.captions}: none of ${counts.skipped} pictures can be used, the first because: ${firstProblem ?? 'it is empty'}`,
    )
  }
  const summary = {
    ...counts,
    firstProblem,
    categories: [...categories].sort(),
    licenses: Object.fromEntries(licenses),
  }
  await writeFileAtomically(summaryPath, async (handle) =>
    handle.writeFile(`${JSON.stringify(summary, undefined, 2)}\n`),
  )
  return summary
}

/** Removes what a killed run left half-written. */
async function clearHalves(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (/^\..+\.(?:partial|old)-[0-9a-f-]+$/.test(name)) await rm(join(folder, name), { recursive: true, force: true })
  }
}

export type TaskOptions = {
  readonly plan: Plan
  /** At most so many pictures. */
  readonly limit: number | undefined
  readonly shard: { readonly part: number; readonly of: number } | undefined
}

/** The tasks of a run, in the order of its pictures. */
export async function* tasksIn(
  folder: string,
  { plan, limit = Number.POSITIVE_INFINITY, shard }: TaskOptions,
): AsyncGenerator<Task> {
  let pictures = 0
  for await (const { value } of readJsonLines(join(folder, runFiles.pictures))) {
    const picture = value as SymbolicPicture // checked before it was written there
    if (pictures >= limit) return
    if (shard !== undefined && !isInShard(picture.id, shard)) continue
    pictures += 1
    yield* tasksOf(picture, plan)
  }
}

function readInput(
  { captions, form, instances, images }: Input,
  { folder, onRecord }: { folder: string; onRecord: (count: number) => void },
): AsyncGenerator<PictureOrProblem> {
  const sizeOf = images === undefined ? undefined : (image: string) => sizeOfPicture(image, images)
  return readCaptions(captions, { form, instances, sizeOf, folder: join(folder, runFiles.parts), onRecord })
}

/** Passes pictures on whose files are there and are pictures. */
async function* withPictureFiles(
  found: AsyncIterable<PictureOrProblem>,
  images: string | undefined,
): AsyncGenerator<PictureOrProblem> {
  for await (const one of found) {
    if (images === undefined || 'problem' in one) {
      yield one
      continue
    }
    const { id, image } = one.picture
    const problem = await pictureProblem(image, images)
    yield problem === undefined ? one : { id, problem: `Cannot use picture ${id}: ${problem}` }
  }
}
