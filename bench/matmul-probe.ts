/** One large f32 matrix product: what the machine can do at best, under the load of the moment. */

import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../src/runtime/session.ts'
import { input, matmul, writeOnnx } from '../src/tensor/index.ts'

export type Probe = {
  readonly shape: string
  readonly flops: number
  readonly run: () => Promise<unknown>
  readonly dispose: () => Promise<void>
}

/** a [M, K] · b [K, N], both given anew at every run; small products are repeated up to about 10 GFLOP. */
export async function matmulProbe([M, K, N]: readonly [number, number, number]): Promise<Probe> {
  const product = matmul(input('a', 'float32', [M, K]), input('b', 'float32', [K, N]))
  const session = await createSession(writeOnnx({ product }, { parameters: 'inputs', name: 'probe' }).model)
  const filled = (rows: number, columns: number) =>
    residentTensor('float32', [rows, columns], {
      data: Float32Array.from({ length: rows * columns }, (_, i) => (i % 17) / 17 - 0.5),
    })
  const inputs = { a: filled(M, K), b: filled(K, N) }
  const outputs = { product: residentTensor('float32', [M, N]) }
  const once = 2 * M * K * N
  const repeats = Math.max(1, Math.round(10e9 / once))
  return {
    shape: `${M} × ${K} × ${N}`,
    flops: once * repeats,
    run: async () => {
      for (let i = 0; i < repeats; i++) await run(session, inputs, { outputs, fetch: [] })
    },
    dispose: async () => {
      await disposeSession(session)
      for (const tensor of [...Object.values(inputs), ...Object.values(outputs)]) disposeTensor(tensor)
    },
  }
}
