import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { findCheckpoint, type Progress, readCheckpoint, readState, writeCheckpoint } from './run-checkpoint.ts'
import { appendLog, appendPace, readPaces, syncLog } from './run-folder.ts'

let folder = ''
let tensors: ReadonlyMap<string, ResidentTensor<'float32'>> = new Map()
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-checkpoint-'))
  tensors = new Map([['projector.weight', residentTensor('float32', [3])]])
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const start: Progress = { step: 0, cursor: 0, skipped: 0, logBytes: 0, unlogged: { loss: 0, steps: 0 }, seconds: 0 }
const values = () => tensors.get('projector.weight')!.data

/** A checkpoint of a step, whose weights are all that step, and a log line for it. */
async function write(step: number, best?: Progress['best'], keep = 2): Promise<string> {
  values().fill(step)
  await appendLog(folder, { type: 'step', step })
  await appendPace(folder, { step, seconds: step, picturesPerSecond: 1, tokensPerSecond: 2 })
  const progress = { ...start, step, logBytes: await syncLog(folder), ...(best && { best }) }
  return writeCheckpoint(folder, { tensors, progress, keep })
}

/** Another value of the same size in the middle of a file. */
async function damage(path: string): Promise<void> {
  const bytes = await readFile(path)
  bytes[bytes.length - 3]! ^= 1
  await writeFile(path, bytes)
}

const checkpoints = async () => (await readdir(folder)).filter((name) => name.startsWith('checkpoint-')).sort()

describe('the best checkpoint', () => {
  test('is kept besides the newest ones, and can be started from', async () => {
    await write(10, { step: 10, value: 0.5 })
    await write(20, { step: 10, value: 0.5 })
    await write(30, { step: 10, value: 0.5 })
    expect(await checkpoints()).toEqual(['checkpoint-00000010', 'checkpoint-00000020', 'checkpoint-00000030'])
    const best = await findCheckpoint(join(folder, 'best'))
    expect((await readState(best!)).get('projector.weight')?.data).toEqual(Float32Array.of(10, 10, 10))
    expect(await findCheckpoint(folder)).toBe(join(folder, 'checkpoint-00000030'))
  })

  test('gives way to a better one', async () => {
    await write(10, { step: 10, value: 0.5 })
    await write(20, { step: 20, value: 0.4 })
    await write(30, { step: 20, value: 0.4 }, 1)
    expect(await checkpoints()).toEqual(['checkpoint-00000020', 'checkpoint-00000030'])
    expect(JSON.parse(await readFile(join(folder, 'best.json'), 'utf8'))).toEqual({
      checkpoint: 'checkpoint-00000020',
      step: 20,
      value: 0.4,
    })
  })

  test('is named again by a resumed run that was killed before it could', async () => {
    await write(10, { step: 10, value: 0.5 })
    await rm(join(folder, 'best.json'))
    await readCheckpoint(folder, { tensors })
    expect(await findCheckpoint(join(folder, 'best'))).toBe(join(folder, 'checkpoint-00000010'))
  })

  test('is missed in one sentence', async () => {
    await write(10)
    await expect(findCheckpoint(join(folder, 'best'))).rejects.toThrow(
      `Cannot start from ${join(folder, 'best')}: found no ${join(folder, 'best.json')}, expected a run that validates`,
    )
  })
})

describe('a damaged checkpoint', () => {
  test.each(['state.safetensors', 'progress.json', 'manifest.json'])('%s: is not started from', async (name) => {
    const file = join(await write(10), name)
    await damage(file)
    await expect(findCheckpoint(folder)).rejects.toThrow(`Cannot start from ${file}: it is damaged, `)
  })

  test('is passed over for the one before it, with the log and the pace of that one, and told', async () => {
    const older = await write(10)
    const newer = await write(20)
    await damage(join(newer, 'state.safetensors'))
    const notices: string[] = []
    const progress = await readCheckpoint(folder, { tensors, onNotice: (text) => notices.push(text) })
    expect(progress.step).toBe(10)
    expect(values()).toEqual(Float32Array.of(10, 10, 10))
    expect(await readFile(join(folder, 'log.jsonl'), 'utf8')).toBe('{"type":"step","step":10}\n')
    expect((await readPaces(folder)).map(({ step }) => step)).toEqual([10])
    expect(notices).toHaveLength(1)
    expect(notices[0]).toContain(`${join(newer, 'state.safetensors')}: it is damaged, found SHA-256 `)
    expect(notices[0]).toContain(`going on from ${older}`)
    await write(20) // its name is free again
    expect(await checkpoints()).toEqual(['checkpoint-00000010', 'checkpoint-00000020'])
    expect((await readdir(folder)).some((name) => name.startsWith('damaged-checkpoint-00000020'))).toBe(true)
  })

  test('without another one ends the resume, and nothing is lost', async () => {
    const path = await write(10)
    await rm(join(path, 'state.safetensors'))
    await expect(readCheckpoint(folder, { tensors })).rejects.toThrow(
      `Cannot resume from ${join(path, 'state.safetensors')}: it is missing, and there is no other checkpoint`,
    )
    expect(await readFile(join(folder, 'log.jsonl'), 'utf8')).not.toBe('')
  })

  test('of an earlier version, without a manifest, is taken as it is', async () => {
    const path = await write(10)
    await rm(join(path, 'manifest.json'))
    values().fill(0)
    expect((await readCheckpoint(folder, { tensors })).step).toBe(10)
    expect(values()).toEqual(Float32Array.of(10, 10, 10))
  })
})

test('a pace that a kill cut off is passed over', async () => {
  await write(10)
  await writeFile(join(folder, 'pace.jsonl'), '{"step":1,"seconds":1,"pict', { flag: 'a' })
  expect((await readPaces(folder)).map(({ step }) => step)).toEqual([10])
})
