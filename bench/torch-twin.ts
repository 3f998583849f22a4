/** The trainer's twin in PyTorch (train_torch.py), as a process that trains so many steps whenever it is told to. */

import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { LlavaConfig } from '../src/model/config.ts'

export type TorchTwin = {
  readonly version: string
  readonly parameters: number
  readonly fusedAttention: boolean
  /** Milliseconds for so many steps, by its own clock. */
  readonly train: (steps: number) => Promise<number>
  readonly dispose: () => Promise<void>
}

const python = '/usr/bin/python3'

/** Undefined where there is no PyTorch. */
export async function torchTwin(
  config: LlavaConfig,
  { batch, length, threads }: { batch: number; length: number; threads: number },
): Promise<TorchTwin | undefined> {
  const found = await promisify(execFile)(python, ['-c', 'import torch']).catch(() => undefined)
  if (found === undefined) return undefined
  const { vision, language, projector, visualTokens } = config
  const sizes = {
    batch,
    length,
    threads,
    visual_tokens: visualTokens,
    projector_layers: projector.layers,
    vision: {
      side: vision.imageSide,
      patch: vision.patch,
      width: vision.width,
      depth: vision.depth,
      heads: vision.heads,
      mlp: vision.mlpWidth,
    },
    language: {
      vocabulary: language.vocabulary,
      width: language.width,
      depth: language.depth,
      heads: language.heads,
      mlp: language.mlpWidth,
      theta: language.ropeTheta,
    },
  }
  const script = fileURLToPath(new URL('./train_torch.py', import.meta.url))
  // Threads that wait are to sleep: where others want the cores, spinning costs PyTorch a hundred times what it gains.
  const env = { OMP_WAIT_POLICY: 'passive', ...process.env }
  const child = spawn(python, [script, JSON.stringify(sizes)], { env, stdio: ['pipe', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const read = async () => {
    const { done, value } = await lines.next()
    if (done === true) throw new Error(`Cannot train with PyTorch: ${script} has ended`)
    return JSON.parse(value) as Record<string, unknown>
  }
  const { version, parameters, fused_attention } = await read()
  return {
    version: String(version),
    parameters: Number(parameters),
    fusedAttention: fused_attention === true,
    train: async (steps) => {
      child.stdin.write(`${steps}\n`)
      return Number((await read()).ms)
    },
    dispose: async () => {
      const ended = once(child, 'exit')
      child.stdin.end()
      await ended
    },
  }
}
