/** Calls of the language model over a KV cache: a prompt, a token per row, several tokens of one row. */

import { disposeTensor, type ResidentTensor } from '../runtime/resident-tensor.ts'
import { run, type Session } from '../runtime/session.ts'
import type { CacheScales } from './cache-scales.ts'
import type { CompiledModel, RunLimits } from './compiled-model.ts'
import { cacheName } from './graphs.ts'
import type { CacheMemory } from './kv-cache.ts'
import { type EncodedPicture, promptInputs, severalInputs, stepInputs } from './language-inputs.ts'
import { partOf } from './prompt.ts'

/** Tokens that follow those in a cache of one row. */
export type Prefill = {
  readonly ids: Int32Array // [L], with a placeholder per visual token
  readonly pictures: readonly EncodedPicture[] // positions counted from the first of `ids`
  readonly cache: CacheMemory
  readonly past: number // tokens in the cache before
}

/** Reads tokens into the cache, after those that are in it: the logits [V] of what follows the last one. */
export async function prefill(
  { config, sessions, deviceCaches, cacheScales }: CompiledModel,
  { ids, pictures, cache, past }: Prefill,
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const most = deviceCaches?.longestRead ?? ids.length
  let logits: Float32Array = new Float32Array()
  for (let from = 0; from < ids.length; from += most) {
    const part = partOf({ ids, pictures }, { from, to: Math.min(from + most, ids.length) })
    const inputs = promptInputs(config, { ...part, past: past + from })
    logits = await logitsOf(sessions.prefill, { inputs, scales: cacheScales, cache, signal })
  }
  return logits
}

/** One more token per row: `ids` [B] follow `past` [B] tokens in the cache → logits [B, V], row after row. */
export async function step(
  { config, sessions, cacheScales }: CompiledModel,
  { ids, past, cache }: { ids: readonly number[]; past: readonly number[]; cache: CacheMemory },
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const inputs = stepInputs(config, { ids, past })
  return logitsOf(sessions.step, { inputs, scales: cacheScales, cache, signal })
}

/** Several tokens of one row, which follow `past` tokens in the cache: the logits [N, V] after each of them. */
export async function stepSeveral(
  { config, sessions, cacheScales }: CompiledModel,
  { ids, past, cache }: { ids: readonly number[]; past: number; cache: CacheMemory },
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const inputs = severalInputs(config, { ids, past })
  return logitsOf(sessions.step, { inputs, scales: cacheScales, cache, signal })
}

type LanguageCall = RunLimits & { readonly inputs: Record<string, ResidentTensor>; readonly cache: CacheMemory }

/** Runs the language model once and frees the inputs. */
async function logitsOf(
  session: Promise<Session>,
  { inputs, scales, ...call }: LanguageCall & { scales: CacheScales },
): Promise<Float32Array> {
  try {
    return take(
      await runLanguageModel(session, { inputs: { ...inputs, ...scales }, fetch: ['logits'], ...call }),
      'logits',
    )
  } finally {
    Object.values(inputs).forEach(disposeTensor)
  }
}

/** Runs the language model once, in the cache; results other than the cache are fetched by name. */
export async function runLanguageModel(
  compiling: Promise<Session>,
  { inputs, cache, fetch, signal }: LanguageCall & { fetch: readonly string[] },
): Promise<Record<string, ResidentTensor>> {
  const memory = cache.blocks.flatMap(({ key, value }, block) => [
    [cacheName('key', block), key] as const,
    [cacheName('value', block), value] as const,
  ])
  const outputs = Object.fromEntries(memory.map(([name, tensor]) => [`next:${name}`, tensor]))
  const session = await untilCompiled(compiling, signal)
  return run(session, { ...inputs, ...Object.fromEntries(memory) }, { outputs, fetch, signal })
}

/** Waits for a session, or throws `signal.reason` when the signal fires first: compiling cannot be stopped, waiting for it can. */
async function untilCompiled(compiling: Promise<Session>, signal: AbortSignal | undefined): Promise<Session> {
  signal?.throwIfAborted()
  let leave = () => {}
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(signal?.reason)
    signal?.addEventListener('abort', leave, { once: true })
  })
  try {
    return await Promise.race([compiling, left])
  } finally {
    signal?.removeEventListener('abort', leave)
  }
}

/** An output's numbers; its tensor is freed. */
export function take(outputs: Readonly<Record<string, ResidentTensor>>, name: string): Float32Array {
  const tensor = outputs[name]
  if (!(tensor?.data instanceof Float32Array)) throw new Error(`Cannot read output ${name}: it is not there`)
  disposeTensor(tensor)
  return tensor.data
}
