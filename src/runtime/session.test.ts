import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, onTestFinished, test } from 'vitest'
import { disposeTensor, type ResidentTensor, residentTensor, view } from './resident-tensor.ts'
import { createSession, disposeSession, run, type Session, type SessionOptions } from './session.ts'

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

describe('an abort', () => {
  test('before the run rejects with its reason and touches nothing', async () => {
    const session = await opened(linear)
    const y = floats([1, 2], [7, 7])
    const inputs = { x: floats([1, 2], [1, 1]), w: floats([2, 2], [1, 2, 3, 4]), b: floats([2], [0, 0]) }
    const reason = new Error('changed my mind')
    await expect(run(session, inputs, { outputs: { y }, signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    await expect(run(session, inputs, { signal: AbortSignal.abort() })).rejects.toThrow(
      expect.objectContaining({ name: 'AbortError' }),
    )
    expect([...y.data]).toEqual([7, 7])
  })

  test('during the run stops it early and leaves the session usable', async () => {
    const { session, inputs } = await slowSession()
    const begin = performance.now()
    const expected = await run(session, inputs)
    const whole = performance.now() - begin
    const controller = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => controller.abort(reason), whole / 10)
    const again = performance.now()
    await expect(run(session, inputs, { signal: controller.signal })).rejects.toBe(reason)
    expect(performance.now() - again).toBeLessThan(0.6 * whole)
    expect((await run(session, inputs)).y?.data).toEqual(expected.y?.data)
  })

  test('of a run that waits for a thread rejects at once', async () => {
    const { session, inputs } = await slowSession()
    const controllers = Array.from({ length: 5 }, () => new AbortController())
    const finished: number[] = []
    const runs = controllers.map(async ({ signal }, index) => {
      await expect(run(session, inputs, { signal })).rejects.toThrow('aborted')
      finished.push(index)
    })
    await sleep(5)
    controllers[4]?.abort()
    await sleep(5)
    expect(finished).toEqual([4])
    for (const controller of controllers) controller.abort()
    await Promise.all(runs)
    expect((await run(session, inputs)).y).toBeDefined()
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

  test('does not copy shared initializers', async () => {
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

describe('disposeSession', () => {
  test('waits for running runs, refuses new ones and may be repeated', async () => {
    const { session, inputs } = await slowSession()
    const order: string[] = []
    const running = run(session, inputs).then(() => order.push('run'))
    const disposal = disposeSession(session).then(() => order.push('dispose'))
    await expect(run(session, inputs)).rejects.toThrow('Cannot run session: it is disposed')
    await Promise.all([running, disposal, disposeSession(session)])
    expect(order).toEqual(['run', 'dispose'])
  })

  test('tensors disposed during a run live until it has returned', async () => {
    const { session, inputs } = await slowSession()
    const running = run(session, inputs)
    for (const tensor of Object.values(inputs)) disposeTensor(tensor)
    expect((await running).y?.shape).toEqual([size, size])
    await expect(run(session, inputs)).rejects.toThrow('Cannot run session with "x": the tensor is disposed')
  })
})

describe('errors', () => {
  const fine = () => ({ x: floats([1, 2], [1, 1]), w: floats([2, 2], [1, 2, 3, 4]), b: floats([2], [0, 0]) })

  test('quote what ONNX Runtime says about a model', async () => {
    await expect(createSession(Uint8Array.of(1, 2, 3))).rejects.toThrow(/^Cannot create session: .*protobuf/i)
    await expect(createSession(new Uint8Array(0))).rejects.toThrow(/^Cannot create session: ./)
    await expect(createSession('/nowhere/model.onnx')).rejects.toThrow(
      /^Cannot create session from \/nowhere\/model\.onnx: .*(exist|failed)/i,
    )
    const unknown = graph({ nodes: [node('Frobnicate', ['x'], ['y'])], inputs: ['x'], outputs: ['y'] })
    await expect(createSession(unknown)).rejects.toThrow(/Frobnicate/)
    await expect(createSession(linear, { threads: 0 })).rejects.toThrow(RangeError)
  })

  test('name the input or output that is wrong', async () => {
    const session = await opened(linear)
    const inputs = fine()
    const { b, ...without } = inputs
    await expect(run(session, without)).rejects.toThrow('Cannot run session: input "b" is missing')
    await expect(run(session, { ...inputs, z: b })).rejects.toThrow(
      'Cannot run session: unknown input "z", expected "x", "w", "b"',
    )
    await expect(run(session, { ...inputs, x: residentTensor('int64', [1, 2]) })).rejects.toThrow(
      new TypeError('Cannot run session: input "x" is int64, expected float32'),
    )
    await expect(run(session, inputs, { fetch: ['nothing'] })).rejects.toThrow('unknown output "nothing"')
    await expect(run(session, inputs, { outputs: { y: residentTensor('int8', [8]) } })).rejects.toThrow(
      new TypeError('Cannot run session: output "y" is int8, expected float32'),
    )
  })

  test('quote what ONNX Runtime says about shapes, and the session stays usable', async () => {
    const session = await opened(linear)
    const inputs = fine()
    await expect(run(session, { ...inputs, x: floats([1, 3], [1, 2, 3]) })).rejects.toThrow(
      /^Cannot run session: .*MatMul/s,
    )
    await expect(run(session, { ...inputs, x: floats([2], [1, 2]) })).rejects.toThrow(
      /^Cannot run session: .*rank.* x /s,
    )
    await expect(run(session, inputs, { outputs: { y: residentTensor('float32', [2]) } })).rejects.toThrow(
      /^Cannot run session: Invalid rank for output: y/,
    )
    await expect(run(session, inputs, { outputs: { y: residentTensor('float32', [1, 1]) } })).rejects.toThrow(
      /^Cannot run session: .*output 'y'.* has shape \{1,1\}.*shape for this run is \{1,2\}/s,
    )
    expect([...(await run(session, inputs)).y!.data]).toEqual([4, 6])
  })

  test('refuse initializers that the model does not have or that do not fit', async () => {
    const model = graph({
      nodes: [node('Add', ['x', 'table'], ['y'])],
      inputs: ['x'],
      outputs: ['y'],
      initializers: [externalTensor('table', [64])],
    })
    await expect(createSession(model, { initializers: { table: residentTensor('float32', [63]) } })).rejects.toThrow(
      /^Cannot create session: .*dimensions do not match/s,
    )
    const nothing = residentTensor('float32', [64])
    await expect(createSession(model, { initializers: { nothing } })).rejects.toThrow(
      /^Cannot create session: .*initializer with name nothing/s,
    )
    await expect(createSession(model)).rejects.toThrow(/^Cannot create session: .*initializer: table/s)
    const gone = residentTensor('float32', [64])
    disposeTensor(gone)
    await expect(createSession(model, { initializers: { table: gone } })).rejects.toThrow(
      'Cannot create session with initializer "table": the tensor is disposed',
    )
  })

  test('refuse a tensor whose buffer was transferred away', async () => {
    const session = await opened(linear)
    const x = residentTensor('float32', [1, 2], { data: new Float32Array(2) })
    structuredClone(x.data.buffer, { transfer: [x.data.buffer as ArrayBuffer] })
    await expect(run(session, { ...fine(), x })).rejects.toThrow(/memory is gone/)
  })
})

describe('memory', () => {
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
})

// Tiny models, written as protobuf wire bytes after onnx.proto.

type Graph = {
  nodes: Uint8Array[]
  inputs: string[]
  outputs: string[]
  initializers?: Uint8Array[]
  type?: number
  ranks?: Record<string, number>
}

const size = 384

/** y = x · w + b */
const linear = graph({
  nodes: [node('MatMul', ['x', 'w'], ['m']), node('Add', ['m', 'b'], ['y'])],
  inputs: ['x', 'w', 'b'],
  outputs: ['y'],
  ranks: { x: 2, w: 2, b: 1 },
})

/** A chain of matrix products long enough to be interrupted: 34 GFLOP on one thread. */
async function slowSession(): Promise<{ session: Session; inputs: Record<string, ResidentTensor> }> {
  const length = 300
  const nodes = Array.from({ length }, (_, i) =>
    node('MatMul', [i === 0 ? 'x' : `h${i}`, 'w'], [i === length - 1 ? 'y' : `h${i + 1}`]),
  )
  const session = await opened(graph({ nodes, inputs: ['x', 'w'], outputs: ['y'] }), { threads: 1 })
  const x = residentTensor('float32', [size, size])
  const w = residentTensor('float32', [size, size])
  for (let i = 0; i < size; i++) x.data[i * (size + 1)] = w.data[i * (size + 1)] = 1
  return { session, inputs: { x, w } }
}

async function opened(model: Uint8Array, options?: SessionOptions): Promise<Session> {
  const session = await createSession(model, options)
  onTestFinished(() => disposeSession(session))
  return session
}

function floats(shape: number[], values: number[]): ResidentTensor<'float32'> {
  return residentTensor('float32', shape, { data: Float32Array.from(values) })
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))]
}

function int(field: number, value: number): Uint8Array {
  return Uint8Array.from([...varint(field * 8), ...varint(value)])
}

function bytes(field: number, value: string | readonly Uint8Array[]): Uint8Array {
  const content = typeof value === 'string' ? Buffer.from(value) : Buffer.concat(value)
  return Buffer.concat([Uint8Array.from([...varint(field * 8 + 2), ...varint(content.length)]), content])
}

function node(operator: string, inputs: string[], outputs: string[]): Uint8Array {
  return bytes(1, [
    ...inputs.map((name) => bytes(1, name)),
    ...outputs.map((name) => bytes(2, name)),
    bytes(4, operator),
  ])
}

/** A float32 initializer whose elements come from outside. */
function externalTensor(name: string, shape: number[]): Uint8Array {
  const location = bytes(13, [bytes(1, 'location'), bytes(2, 'weights')])
  return bytes(5, [...shape.map((dim) => int(1, dim)), int(2, 1), bytes(8, name), location, int(14, 1)])
}

/** A float32 initializer of zeros. */
function rawTensor(name: string, shape: number[]): Uint8Array {
  const raw = new Uint8Array(4 * shape.reduce((product, dim) => product * dim, 1))
  return bytes(5, [...shape.map((dim) => int(1, dim)), int(2, 1), bytes(8, name), bytes(9, [raw])])
}

/** Dimensions are left open: the rank is stated for the names in `ranks`, nothing for the others. */
function graph({ nodes, inputs, outputs, initializers = [], type = 1, ranks = {} }: Graph): Uint8Array {
  const value = (field: number, name: string) => {
    const dims = Array.from({ length: ranks[name] ?? 0 }, (_, axis) => bytes(1, [bytes(2, `${name}${axis}`)]))
    const tensor = name in ranks ? [int(1, type), bytes(2, dims)] : [int(1, type)]
    return bytes(field, [bytes(1, name), bytes(2, [bytes(1, tensor)])])
  }
  const body = [
    ...nodes,
    bytes(2, 'test'),
    ...initializers,
    ...inputs.map((name) => value(11, name)),
    ...outputs.map((name) => value(12, name)),
  ]
  return Buffer.concat([int(1, 10), bytes(7, body), bytes(8, [bytes(1, ''), int(2, 21)])])
}
