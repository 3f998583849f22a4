import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { disposeTensor } from './resident-tensor.ts'
import { disposeSession, run } from './session.ts'
import { floats, linear, opened, size, slowSession } from './tiny-graphs.fixture.ts'

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
