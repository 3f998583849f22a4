import { expect, test } from 'vitest'
import { deviceFailure, inTurn, operatorsOf } from './device.ts'

test('work on the GPU is done one piece after the other, whatever became of those before', async () => {
  const events: string[] = []
  const work = (name: string, fails = false) =>
    inTurn('webgpu', async () => {
      events.push(`${name} begins`)
      await new Promise((resolve) => setImmediate(resolve))
      events.push(`${name} ends`)
      if (fails) throw new Error(name)
      return name
    })
  const first = work('first', true)
  const second = work('second')
  await expect(first).rejects.toThrow('first')
  expect(await second).toBe('second')
  expect(events).toEqual(['first begins', 'first ends', 'second begins', 'second ends'])
})

test('work on the CPU waits for nothing', async () => {
  let end = () => {}
  const gpu = inTurn('webgpu', () => new Promise<void>((resolve) => (end = resolve)))
  expect(await inTurn('cpu', async () => 'done')).toBe('done')
  await new Promise((resolve) => setImmediate(resolve))
  end()
  await gpu
})

test('a tensor that finds no room is told in one sentence, other failures as they are', () => {
  const lines = 'WebGPU validation failed. [Invalid Buffer (unlabeled)] is invalid due to a previous error.\n - While'
  expect(deviceFailure(new Error(lines))).toMatchObject({
    message: expect.stringMatching(/^Cannot run session on device webgpu: a tensor is larger than [^\n]*[^.]$/),
  })
  const other = new Error('Cannot run session: no such input')
  expect(deviceFailure(other)).toBe(other)
})

test('each device has operators of its own', () => {
  expect([operatorsOf(undefined), operatorsOf('cpu'), operatorsOf('webgpu')]).toEqual(['cpu', 'cpu', 'gpu'])
})
