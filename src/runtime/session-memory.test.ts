import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { disposeTensor, residentTensor } from './resident-tensor.ts'
import { createSession, disposeSession, run } from './session.ts'
import { externalTensor, floats, graph, linear, node, opened, rawTensor } from './tiny-graphs.fixture.ts'

setFlagsFromString('--expose-gc')
const gc: () => void = runInNewContext('gc')

async function useAndDispose(rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const session = await createSession(linear, { threads: 1 })
    const inputs = {
      x: floats([64, 2], new Array(128).fill(1)),
      w: floats([2, 2], [1, 2, 3, 4]),
      b: floats([2], [0, 0]),
    }
    const { y } = await run(session, inputs)
    await expect(run(session, { ...inputs, b: residentTensor('float32', [3]) })).rejects.toThrow()
    for (const tensor of [...Object.values(inputs), y!]) disposeTensor(tensor)
    await disposeSession(session)
  }
  gc()
}

/** MiB by which memory grows in the best of four rounds: a leak grows in each, the system's allocator only in some. */
async function leastGrowth(round: () => Promise<void>): Promise<number> {
  await round()
  const growths: number[] = []
  for (let number = 0; number < 4; number++) {
    const before = process.memoryUsage.rss()
    await round()
    growths.push((process.memoryUsage.rss() - before) / 2 ** 20)
  }
  return Math.min(...growths)
}

test('sessions share initializers without a copy', async () => {
  const nodes = [node('Add', ['x', 'table'], ['y'])]
  const model = graph({
    nodes,
    inputs: ['x'],
    outputs: ['y'],
    initializers: [externalTensor('table', [16, 2 ** 20])],
  })
  const table = residentTensor('float32', [16, 2 ** 20])
  table.data.fill(1)
  const before = process.memoryUsage.rss()
  for (let count = 0; count < 3; count++) await opened(model, { initializers: { table } })
  expect(process.memoryUsage.rss() - before).toBeLessThan(table.data.byteLength)
})

test('a thousand disposed sessions and their tensors leave nothing behind', async () => {
  expect(await leastGrowth(() => useAndDispose(250))).toBeLessThan(3)
}, 60_000)

test('a hundred thousand tensors and ten thousand runs leave nothing behind', async () => {
  const session = await opened(linear, { threads: 1 })
  const w = floats([2, 2], [1, 2, 3, 4])
  const b = floats([2], [0, 0])
  const use = async (rounds: number) => {
    for (let round = 0; round < rounds; round++) {
      const tensors = Array.from({ length: 9 }, () => residentTensor('float32', [1, 2]))
      const { y } = await run(session, { x: tensors[0]!, w, b })
      for (const tensor of [...tensors, y!]) disposeTensor(tensor)
    }
    gc()
  }
  expect(await leastGrowth(() => use(2500))).toBeLessThan(3)
}, 60_000)

test('forgotten tensors and sessions are freed too', async () => {
  const forget = async (rounds: number) => {
    for (let round = 0; round < rounds; round++) {
      const session = await createSession(big, { threads: 1 })
      await run(session, { x: residentTensor('float32', [1024]) })
      if (round % 20 === 19) {
        gc()
        await sleep(5)
      }
    }
  }
  // 1 MiB of weights in each session.
  const big = graph({
    nodes: [node('Add', ['x', 'table'], ['y'])],
    inputs: ['x'],
    outputs: ['y'],
    initializers: [rawTensor('table', [256, 1024])],
  })
  await forget(60)
  const before = process.memoryUsage.rss()
  await forget(200)
  expect((process.memoryUsage.rss() - before) / 2 ** 20).toBeLessThan(100)
}, 20_000)
