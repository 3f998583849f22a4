import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { disposeTensor, residentTensor, view } from './resident-tensor.ts'
import { createSession, disposeSession, run, type SessionOptions } from './session.ts'
import { externalTensor, floats, graph, linear, node, opened, slowSession } from './tiny-graphs.fixture.ts'

describe('run', () => {
  test('multiplies matrices and adds a bias, for any number of rows', async () => {
    const session = await opened(linear)
    expect(session.inputNames).toEqual(['x', 'w', 'b'])
    expect(session.outputNames).toEqual(['y'])
    const w = floats([2, 2], [1, 2, 3, 4])
    const b = floats([2], [10, 20])
    const two = await run(session, { x: floats([2, 2], [1, 0, 0, 1]), w, b })
    expect(two.y?.shape).toEqual([2, 2])
    expect([...two.y!.data]).toEqual([11, 22, 13, 24])
    const one = await run(session, { x: floats([1, 2], [1, 1]), w, b })
    expect(one.y?.shape).toEqual([1, 2])
    expect([...one.y!.data]).toEqual([14, 26])
    const none = await run(session, { x: floats([0, 2], []), w, b })
    expect(none.y?.shape).toEqual([0, 2])
  })

  test('reads what was last written into an input and writes into a given output', async () => {
    const session = await opened(linear)
    const x = floats([1, 2], [1, 1])
    const inputs = { x, w: floats([2, 2], [1, 2, 3, 4]), b: floats([2], [0, 0]) }
    const y = residentTensor('float32', [1, 2])
    const data = y.data
    expect((await run(session, inputs, { outputs: { y } })).y).toBe(y)
    expect([...data]).toEqual([4, 6])
    x.data[0] = 2
    await run(session, inputs, { outputs: { y } })
    expect([...data]).toEqual([5, 8])
  })

  test('updates a parameter in place when the output is the input', async () => {
    const session = await opened(graph({ nodes: [node('Sub', ['p', 'g'], ['q'])], inputs: ['p', 'g'], outputs: ['q'] }))
    const p = floats([100], new Array(100).fill(1))
    const g = floats([100], new Array(100).fill(0.25))
    for (let step = 0; step < 3; step++) await run(session, { p, g }, { outputs: { q: p } })
    expect([...p.data]).toEqual(new Array(100).fill(0.25))
  })

  test('reads and writes views of a larger tensor', async () => {
    const session = await opened(graph({ nodes: [node('Sub', ['p', 'g'], ['q'])], inputs: ['p', 'g'], outputs: ['q'] }))
    const cache = floats([3, 2], [1, 2, 3, 4, 5, 6])
    const rows = [0, 1, 2].map((row) => view(cache, { offset: 2 * row, shape: [1, 2] }))
    await run(session, { p: rows[2]!, g: rows[0]! }, { outputs: { q: rows[1]! } })
    expect([...cache.data]).toEqual([1, 2, 4, 4, 5, 6])
  })

  test('returns only the fetched outputs, and those with a given place', async () => {
    const session = await opened(
      graph({
        nodes: [node('Neg', ['x'], ['a']), node('Abs', ['x'], ['b']), node('Exp', ['x'], ['c'])],
        inputs: ['x'],
        outputs: ['a', 'b', 'c'],
      }),
    )
    const x = floats([1], [-2])
    expect(Object.keys(await run(session, { x }))).toEqual(['a', 'b', 'c'])
    const b = residentTensor('float32', [1])
    expect(Object.keys(await run(session, { x }, { fetch: ['a'], outputs: { b } }))).toEqual(['a', 'b'])
    expect([...b.data]).toEqual([2])
  })

  test.each(['float16', 'bfloat16', 'int32', 'int64', 'uint8', 'int8', 'bool'] as const)('passes %s', async (dtype) => {
    const [type] = [{ float16: 10, bfloat16: 16, int32: 6, int64: 7, uint8: 2, int8: 3, bool: 9 }[dtype]]
    const session = await opened(
      graph({ nodes: [node('Identity', ['x'], ['y'])], inputs: ['x'], outputs: ['y'], type }),
    )
    const x = residentTensor(dtype, [3])
    for (const [index, value] of [1, 0, 1].entries()) x.data[index] = dtype === 'int64' ? BigInt(value) : value
    const { y } = await run(session, { x })
    expect(y?.dtype).toBe(dtype)
    expect(y?.data).toEqual(x.data)
  })

  test('runs several times at once on one session', async () => {
    const session = await opened(linear, { threads: 1 })
    const w = floats([2, 2], [1, 0, 0, 1])
    const b = floats([2], [0, 0])
    const all = Array.from({ length: 300 }, (_, i) => run(session, { x: floats([1, 2], [i, -i]), w, b }))
    for (const [i, { y }] of (await Promise.all(all)).entries()) expect([...y!.data]).toEqual([i, -i + 0])
  })

  test('leaves the event loop free', async () => {
    const { session, inputs } = await slowSession()
    let ticks = 0
    const timer = setInterval(() => ticks++, 5)
    const begin = performance.now()
    await run(session, inputs)
    clearInterval(timer)
    const took = performance.now() - begin
    expect(took).toBeGreaterThan(20)
    expect(ticks).toBeGreaterThan(took / 50)
  })
})

describe('createSession', () => {
  test('shares a tensor as external initializer between two sessions', async () => {
    const external = (operator: string) =>
      graph({
        nodes: [node(operator, ['x', 'table'], ['y'])],
        inputs: ['x'],
        outputs: ['y'],
        initializers: [externalTensor('table', [64])],
      })
    const table = floats(
      [64],
      Array.from({ length: 64 }, (_, i) => i),
    )
    const adder = await opened(external('Add'), { initializers: { table } })
    const multiplier = await opened(external('Mul'), { initializers: { table } })
    disposeTensor(table) // the sessions hold on to it
    const x = floats([1], [3])
    expect((await run(adder, { x })).y!.data[63]).toBe(66)
    expect((await run(multiplier, { x })).y!.data[63]).toBe(189)
    await disposeSession(adder)
    expect((await run(multiplier, { x })).y!.data[63]).toBe(189)
  })

  test('loads a file and writes a profile', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'session-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'modèle.onnx'), linear)
    const options: SessionOptions = { profile: join(folder, 'profile'), optimization: 'none' }
    const session = await createSession(join(folder, 'modèle.onnx'), options)
    expect(session.inputNames).toEqual(['x', 'w', 'b'])
    await disposeSession(session)
    expect(readdirSync(folder).filter((file) => /^profile.*json$/.test(file))).toHaveLength(1)
  })
})
