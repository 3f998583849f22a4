/** What this processor's sums of 8 bit products are worth. */

import { fromChannels, input, linear, writeOnnx } from '../tensor/index.ts'
import { check, created, onnxRuntime } from './api.ts'
import { nativeText, pointersTo } from './foreign-functions.ts'
import { borrowValue, disposeTensor, giveBackValue, residentTensor } from './resident-tensor.ts'

let known: boolean | undefined

/**
 * Whether products of unsigned activations with signed weights of 8 bits come out wrong: processors of the x86 family without VNNI add two of them in
 * 16 bits, and ONNX Runtime lets the sum saturate without a word. Found out by one small product, whose numbers are as large as they can be.
 */
export function sumsSaturate(): boolean {
  known ??= Math.abs(largestProduct() / (width * 127) - 1) > 0.01
  return known
}

const width = 64
const rows = 4
const out = 16

/** Ones times codes of 127, whose scales are 1: 64 · 127 where sums are exact. */
function largestProduct(): number {
  const { api, environment } = onnxRuntime()
  const action = 'try integer products'
  const tensors = {
    x: residentTensor('float32', [rows, width], { data: new Float32Array(rows * width).fill(1) }),
    values: residentTensor('int8', [width, out], { data: new Int8Array(width * out).fill(127) }),
    scales: residentTensor('float32', [out], { data: new Float32Array(out).fill(1) }),
    y: residentTensor('float32', [rows, out]),
  }
  const weight = fromChannels({
    values: input('values', 'int8', [width, out]),
    scales: input('scales', 'float32', [out]),
  })
  const y = linear(input('x', 'float32', [rows, width]), { weight })
  const { model } = writeOnnx({ y }, { parameters: 'inputs' })
  const names = (['x', 'values', 'scales', 'y'] as const).map((name) => ({
    text: nativeText(name),
    tensor: tensors[name],
  }))
  const pointers = pointersTo(names.map(({ text }) => text))
  const values = BigUint64Array.from(names, ({ tensor }) => borrowValue(tensor, action))
  const settings = created(action, (out) => api.CreateSessionOptions(out))
  let session = 0n
  try {
    check(api.SetIntraOpNumThreads(settings, 1), action)
    session = created(action, (out) => api.CreateSessionFromArray(environment, model, model.byteLength, settings, out))
    check(api.Run(session, 0n, pointers, values, 3, pointers.subarray(3), 1, values.subarray(3)), action)
    return tensors.y.data[0] ?? Number.NaN
  } finally {
    if (session !== 0n) api.ReleaseSession(session)
    api.ReleaseSessionOptions(settings)
    for (const { tensor } of names) {
      giveBackValue(tensor)
      disposeTensor(tensor)
    }
  }
}
