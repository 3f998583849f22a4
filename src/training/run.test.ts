import { spawn } from 'node:child_process'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeOneFile } from '../../tests/one-file.ts'
import { type TrainingEvent, train } from './run.ts'
import { readPaces } from './run-folder.ts'
import { parseRunLog } from './run-log.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let base = ''
let program = ''
let unbroken: Awaited<ReturnType<typeof outcome>>
beforeAll(async () => {
  base = await writeTinyLesson()
  program = await writeOneFile(fileURLToPath(new URL('run.fixture.ts', import.meta.url)), join(base, 'program'))
  await train(tinyRecipe(base), { folder: join(base, 'unbroken'), threads: 1 })
  unbroken = await outcome(join(base, 'unbroken'))
})
afterAll(() => rm(base, { recursive: true, force: true }))

/** What a run leaves, byte by byte, apart from the time that it took. */
async function outcome(folder: string) {
  const names = (await readdir(folder)).sort()
  const last = join(folder, names.filter((name) => name.startsWith('checkpoint-')).at(-1) ?? '')
  const { seconds: _, ...progress } = JSON.parse(await readFile(join(last, 'progress.json'), 'utf8'))
  const state = (await readFile(join(last, 'state.safetensors'))).toString('base64')
  return { names, progress, log: await readFile(join(folder, 'log.jsonl'), 'utf8'), state }
}

/** Resumes in a process of its own; returns how it ended and what it complained of. */
async function inProcess(folder: string, { kill = [], limit }: { kill?: string[]; limit?: number } = {}) {
  const recipe = join(base, 'recipe.json')
  await writeFile(recipe, JSON.stringify(tinyRecipe(base)))
  const command = [process.execPath, program, recipe, folder, ...kill]
  const limited = ['sh', '-c', `ulimit -f ${limit} && exec "$@"`, 'sh', ...command]
  const [file = '', ...args] = limit === undefined ? command : limited
  const child = spawn(file, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  let complaint = ''
  child.stderr.on('data', (text) => {
    complaint += text
  })
  return new Promise<{ signal: string | null; complaint: string }>((resolve) => {
    child.on('exit', (_, signal) => resolve({ signal, complaint }))
  })
}

describe('a run that is killed and resumed ends as if it had never stopped', () => {
  test.each([
    { moment: 'while it writes its first checkpoint', kills: [['writing', '0']] },
    {
      moment: 'while it writes a later one, and again while it deletes',
      kills: [
        ['writing', '2'],
        ['deleting', '1'],
      ],
    },
    { moment: 'at two other moments', kills: [['15'], ['60']] },
  ])('$moment', async ({ moment, kills }) => {
    const folder = join(base, moment)
    for (const kill of kills) expect(await inProcess(folder, { kill })).toEqual({ signal: 'SIGKILL', complaint: '' })
    await train(tinyRecipe(base), { folder, resume: true, threads: 1 })
    expect(await outcome(folder)).toEqual(unbroken)
  }, 240_000)

  test('by a signal, again and again', async () => {
    const folder = join(base, 'stopped')
    let done = 0
    for (let part = 0; part < 40 && done < 30; part++) {
      const controller = new AbortController()
      await train(tinyRecipe(base), {
        folder,
        resume: true,
        threads: 1,
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type === 'start') setTimeout(() => controller.abort(), 60)
          if (event.type === 'end') done = event.step
        },
      })
    }
    // A signal leaves checkpoints at other steps: older ones differ, the last does not.
    const { names: _, ...result } = await outcome(folder)
    expect(result).toEqual((({ names: _, ...rest }) => rest)(unbroken))
  }, 120_000)

  test('with the same number of threads, one or two', async () => {
    const runs = ['two', 'two again'].map((name) => join(base, name))
    for (const folder of runs) await train(tinyRecipe(base), { folder, threads: 2 })
    expect(await outcome(runs[0]!)).toEqual(await outcome(runs[1]!))
  }, 120_000)
})

describe('train', () => {
  test('logs losses, validations and skipped samples, without anything that depends on the clock', () => {
    const lines = unbroken.log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    const steps = lines.filter(({ type }) => type === 'step')
    expect(steps.map(({ step }) => step)).toEqual([4, 8, 12, 16, 20, 24, 28, 30])
    expect(Object.keys(steps[0])).toEqual(['type', 'step', 'loss', 'gradientNorm', 'schedule'])
    expect(steps.at(-1).loss).toBeLessThan(steps[0].loss)
    expect(lines.filter(({ type }) => type === 'validation').map(({ step }) => step)).toEqual([10, 20, 30])
    expect(lines.filter(({ type }) => type === 'skipped')[0].reason).toContain('missing.png')
    expect(unbroken.progress.skipped).toBe(lines.filter(({ type }) => type === 'skipped').length)
  })

  test('keeps as many checkpoints as asked for and the best, and no scraps', () => {
    const kept = ['checkpoint-00000027', 'checkpoint-00000030']
    expect(unbroken.names).toEqual(['best.json', ...kept, 'log.jsonl', 'pace.jsonl', 'recipe.json'])
  })

  test('keeps the checkpoint of the validation with the lowest loss, also when later ones are worse', async () => {
    const folder = join(base, 'best')
    // It learns that everything is red and is asked about other colours: first it learns how answers are worded, then to be sure of red.
    const text = await readFile(join(base, 'data.json'), 'utf8')
    const [file, validation] = [join(base, 'red.json'), join(base, 'colours.json')]
    const rows = JSON.parse(text).filter(({ image }: { image: string }) => image !== 'missing.png')
    await writeFile(file, JSON.stringify(rows).replaceAll(/It is \w+\./g, 'It is red.'))
    await writeFile(validation, JSON.stringify(rows.filter(({ image }: { image: string }) => image !== 'red.png')))
    const data = { llava: { file, validation, images: join(base, 'pictures') } }
    const steps = 60
    const recipe = tinyRecipe(base, { data, steps, keepCheckpoints: 1, validate: { every: 5, batches: 2 } })
    await train(recipe, { folder, threads: 1 })
    const { validations } = parseRunLog(await readFile(join(folder, 'log.jsonl'), 'utf8'), 'log')
    const best = validations.reduce((low, one) => (one.loss < low.loss ? one : low))
    expect(best.step).toBeLessThan(steps)
    const { step, value } = JSON.parse(await readFile(join(folder, 'best.json'), 'utf8'))
    expect({ step, value }).toEqual({ step: best.step, value: best.loss })
    const names = (await readdir(folder)).filter((name) => name.startsWith('checkpoint-'))
    const numbers = new Set([best.step, steps].map((one) => `checkpoint-${String(one).padStart(8, '0')}`))
    expect(new Set(names)).toEqual(numbers)
    const from = tinyRecipe(base, { start: { languageModel: join(folder, 'best') }, steps: 1, validate: undefined })
    await train(from, { folder: join(base, 'from best'), threads: 1 })
  }, 60_000)

  test('goes on from the checkpoint before a damaged one, to the same end', async () => {
    const folder = join(base, 'damaged')
    const controller = new AbortController()
    const stop = (event: TrainingEvent) => event.type === 'checkpoint' && event.step === 9 && controller.abort()
    await train(tinyRecipe(base), { folder, threads: 1, signal: controller.signal, onEvent: stop })
    const state = join(folder, 'checkpoint-00000009', 'state.safetensors')
    const bytes = await readFile(state)
    await writeFile(state, bytes.subarray(0, bytes.length - 5))
    const events: TrainingEvent[] = []
    await train(tinyRecipe(base), { folder, resume: true, threads: 1, onEvent: (event) => events.push(event) })
    expect(events[0]).toMatchObject({ type: 'notice', text: expect.stringContaining(`${state}: it is damaged`) })
    expect(events[1]).toMatchObject({ type: 'start', step: 6 })
    const { names, ...result } = await outcome(folder)
    expect(result).toEqual((({ names: _, ...rest }) => rest)(unbroken))
    expect(names.filter((name) => !name.startsWith('damaged-'))).toEqual(unbroken.names)
  }, 60_000)

  test('refuses a second run in its folder while it trains', async () => {
    const folder = join(base, 'two at once')
    let second: Promise<unknown> | undefined
    await train(tinyRecipe(base, { steps: 6, validate: undefined }), {
      folder,
      threads: 1,
      onEvent: ({ type }) => {
        if (type === 'start') {
          const again = train(tinyRecipe(base, { steps: 6, validate: undefined }), { folder, resume: true, threads: 1 })
          second = again.catch((error: Error) => error.message)
        }
      },
    })
    // It may come when the first has ended: then there is nothing left to do, and nothing to refuse.
    const said = await second
    if (typeof said === 'string') expect(said).toContain(`Cannot train in ${folder}: this process trains in it`)
    expect((await readdir(folder)).sort()).toEqual([
      'checkpoint-00000003',
      'checkpoint-00000006',
      'log.jsonl',
      'pace.jsonl',
      'recipe.json',
    ])
  }, 60_000)

  test('writes how fast it went, beside the log', async () => {
    const paces = await readPaces(join(base, 'unbroken'))
    expect(paces.map(({ step }) => step)).toEqual([4, 8, 12, 16, 20, 24, 28, 30])
    for (const [index, { seconds, tokensPerSecond, picturesPerSecond }] of paces.entries()) {
      expect(seconds).toBeGreaterThan(paces[index - 1]?.seconds ?? 0)
      expect(tokensPerSecond / picturesPerSecond).toBeCloseTo(40, 9)
    }
  })

  test('tells its rates, and each loss as the mean since the last one', async () => {
    const events: TrainingEvent[] = []
    const recipe = tinyRecipe(base, { steps: 4, logEvery: 1, validate: undefined })
    await train(recipe, { folder: join(base, 'events'), threads: 1, onEvent: (event) => events.push(event) })
    expect(events[0]).toMatchObject({ type: 'start', step: 0, steps: 4 })
    const steps = events.filter((event) => event.type === 'step')
    const mean = steps.reduce((sum, { loss }) => sum + loss, 0) / 4
    const first = tinyRecipe(base, { steps: 4, logEvery: 4, validate: undefined })
    const together: TrainingEvent[] = []
    await train(first, { folder: join(base, 'events-4'), threads: 1, onEvent: (event) => together.push(event) })
    expect(together.find((event) => event.type === 'step')?.loss).toBeCloseTo(mean, 12)
    for (const { tokensPerSecond, picturesPerSecond } of steps) {
      expect(tokensPerSecond / picturesPerSecond).toBeCloseTo(40, 9)
    }
    expect(events.at(-1)).toMatchObject({ type: 'end', step: 4 })
  })

  test('returns the whole model, frozen parts as they were', async () => {
    const align = { stage: 'feature-alignment', rates: { projector: 1e-2 }, steps: 2, validate: undefined }
    const weights = await train(tinyRecipe(base, align), { folder: join(base, 'align'), threads: 1 })
    const none = await train(tinyRecipe(base, { ...align, steps: 1, rates: { projector: 1e-9 } }), {
      folder: join(base, 'align-nothing'),
      threads: 1,
    })
    const changed = [...weights].filter(([name, { data }]) =>
      data.some((x, i) => Math.abs(x - none.get(name)!.data[i]!) > 1e-6),
    )
    expect(new Set(changed.map(([name]) => name.split('.')[0]))).toEqual(new Set(['projector']))
    expect([...weights.keys()].some((name) => name.startsWith('visionEncoder.'))).toBe(true)
  })

  test('refuses a folder with another recipe, and names what differs', async () => {
    const other = tinyRecipe(base, { steps: 31, seed: 1 })
    await expect(train(other, { folder: join(base, 'unbroken'), resume: true })).rejects.toThrow(
      'it holds a run with another recipe (steps, seed differ)',
    )
  })

  test('refuses to begin anew where there is a run', async () => {
    await expect(train(tinyRecipe(base), { folder: join(base, 'unbroken') })).rejects.toThrow('expected --resume')
    expect(await outcome(join(base, 'unbroken'))).toEqual(unbroken)
  })

  test('clears away what a kill left half-written', async () => {
    const folder = join(base, 'scraps')
    await mkdir(join(folder, '.checkpoint-00000003.partial-1234'), { recursive: true })
    await mkdir(join(folder, '.checkpoint-00000001.old'))
    await writeFile(join(folder, '.recipe.json.partial-12'), '{')
    await writeFile(join(folder, 'log.jsonl'), '{"type":"step","step":1}\n{"type"')
    await train(tinyRecipe(base), { folder, resume: true, threads: 1 })
    expect(await outcome(folder)).toEqual(unbroken)
  })

  test('says that it cannot write to a folder', async () => {
    const file = join(base, 'file')
    await writeFile(file, '')
    await expect(train(tinyRecipe(base), { folder: join(file, 'run') })).rejects.toThrow(/^Cannot train in .*ENOTDIR/)
  })

  test.skipIf(process.platform === 'win32')(
    'keeps its last checkpoint when there is no room for another',
    async () => {
      const folder = join(base, 'full')
      const controller = new AbortController()
      const stop = ({ type }: TrainingEvent) => type === 'checkpoint' && controller.abort()
      await train(tinyRecipe(base), { folder, threads: 1, signal: controller.signal, onEvent: stop })
      const before = await readFile(join(folder, 'checkpoint-00000003', 'state.safetensors'))
      const { complaint } = await inProcess(folder, { limit: 16 })
      expect(complaint).toMatch(/Cannot write checkpoint .*checkpoint-0000000\d: .*EFBIG/)
      const names = await readdir(folder)
      const kept = names.filter((name) => name.includes('checkpoint'))
      expect(kept.length).toBeLessThanOrEqual(2)
      expect(kept[0]).toBe('checkpoint-00000003')
      expect(await readFile(join(folder, 'checkpoint-00000003', 'state.safetensors'))).toEqual(before)
      expect((await inProcess(folder)).complaint).toBe('')
      const { names: _, ...result } = await outcome(folder)
      expect(result).toEqual((({ names: _, ...rest }) => rest)(unbroken))
    },
    120_000,
  )
})
