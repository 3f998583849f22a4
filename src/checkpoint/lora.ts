/**
 * LoRA adapters (Hu et al. 2021) in the layout of PEFT: `adapter_config.json` and `adapter_model.safetensors`, whose tensors are named after the
 * modules of transformers, `base_model.model.<module>.lora_A.weight` and `.lora_B.weight`. Parts that were trained as a whole beside lie in the same
 * file, named as in the model; PEFT calls them `modules_to_save`.
 */

import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { disposeTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { addLowRank, input, scaleBy, writeOnnx } from '../tensor/index.ts'
import { tellWrongFields } from '../wrong-fields.ts'
import { hasCode, writeFileAtomically, writeFolderAtomically } from './atomic-file.ts'
import { isFloat, toFloat32 } from './dtype.ts'
import { quote, readStrictJson } from './json.ts'
import { detectLayout, layoutNames, toCanonical, toForeign } from './layouts.ts'
import type { Weights } from './load.ts'
import { closeSafetensors, openSafetensors, readTensor, type SafetensorsFile } from './safetensors.ts'
import { writeSafetensors } from './safetensors-writer.ts'

export type Matrix = { readonly shape: readonly number[]; readonly data: Float32Array }

export type LoraAdapter = {
  /** The model folder or hub name that the adapter was trained on. */
  readonly base: string
  /** r: what a layer's change is allowed in rank. */
  readonly rank: number
  /** α: changes are multiplied by α/r. */
  readonly alpha: number
  /** The share of its input that was dropped while it learned; nothing to whoever uses it. */
  readonly dropout?: number | undefined
  /** A [r, In] and B [Out, r] by our names of linear layers, such as `languageModel.blocks.0.attention.query`. */
  readonly layers: ReadonlyMap<string, { readonly A: Matrix; readonly B: Matrix }>
  /** Weights that were trained as a whole and take the place of the model's. */
  readonly whole: Weights
}

const configFile = 'adapter_config.json'
const tensorFile = 'adapter_model.safetensors'
const prefix = 'base_model.model.'
/** PEFT names the modules of the living model, which are these since transformers 4.52; adapters in any layout are read. */
const writtenLayout = 'hugging-face-2025'

/**
 * The model with the adapter worked in: W + α/r · B A for every adapted layer, in float32.
 *
 * @throws RangeError when the adapter changes a layer that the model lacks or that has another shape
 */
export function mergeAdapter(weights: Weights, adapter: LoraAdapter): Promise<Weights> {
  return changeWeights(weights, adapter, { action: 'merge the adapter', sign: 1 })
}

/**
 * The model as it was before `mergeAdapter`, but for rounding.
 *
 * @throws RangeError as `mergeAdapter`, and when the adapter replaced whole weights: what they were is lost
 */
export async function unmergeAdapter(weights: Weights, adapter: LoraAdapter): Promise<Weights> {
  const [replaced] = adapter.whole.keys()
  if (replaced !== undefined) {
    throw new RangeError(
      `Cannot take the adapter out: it replaced ${replaced} as a whole, expected an adapter of low-rank changes only`,
    )
  }
  return changeWeights(weights, adapter, { action: 'take the adapter out', sign: -1 })
}

/** Writes `folder` beside and renames it into place; another adapter there is replaced. Errors: `Error` when it holds other things. */
export async function writeAdapter(folder: string, adapter: LoraAdapter): Promise<void> {
  const tensors = new Map(
    [...adapter.layers].flatMap(([layer, { A, B }]) => [
      [`${prefix}${moduleOf(layer)}.lora_A.weight`, A],
      [`${prefix}${moduleOf(layer)}.lora_B.weight`, B],
    ]),
  )
  const whole = [...adapter.whole].map(([name, weight]) => [toForeign(name, writtenLayout), weight] as const)
  for (const [name, weight] of whole) tensors.set(prefix + name, weight)
  const boxes = new Set(whole.map(([name]) => /^(model\.[a-z_]+|[a-z_]+)/.exec(name)?.[0]))
  const config = {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: adapter.base,
    r: adapter.rank,
    lora_alpha: adapter.alpha,
    lora_dropout: adapter.dropout ?? 0,
    target_modules: [...adapter.layers.keys()].map(moduleOf),
    modules_to_save: boxes.size === 0 ? null : [...boxes],
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
  }
  await writeFolderAtomically(
    folder,
    async (temporary) => {
      await writeSafetensors(join(temporary, tensorFile), tensors, { metadata: { format: 'pt' } })
      const text = `${JSON.stringify(config, null, 2)}\n`
      await writeFileAtomically(join(temporary, configFile), (handle) => writeFile(handle, text))
    },
    { mayReplace: (names) => names.every((name) => name === configFile || name === tensorFile) },
  )
}

/**
 * Reads an adapter that `writeAdapter` or PEFT wrote.
 *
 * @throws Error when a file or a tensor is missing or unknown, TypeError for a kind of adapter that is not plain LoRA, RangeError for tensors that
 *   do not have the rank that the config states
 */
export async function readAdapter(folder: string): Promise<LoraAdapter> {
  const failure = `Cannot read the adapter ${folder}`
  await expectFiles(folder, failure)
  const {
    base_model_name_or_path: base,
    r: rank,
    lora_alpha: alpha,
  } = parseConfig(await readStrictJson(join(folder, configFile)), failure)
  const file = await openSafetensors(join(folder, tensorFile))
  try {
    const halves = new Map<string, { A?: Matrix; B?: Matrix }>()
    const whole = new Map<string, Matrix>()
    for (const [stored, { layer, half, name }] of renameTensors(file, failure)) {
      const { dtype, shape, data } = await readTensor(file, stored)
      const matrix = { shape, data: toFloat32(dtype, data) }
      if (half === undefined) whole.set(name, matrix)
      else halves.set(layer, { ...halves.get(layer), [half]: matrix })
    }
    const layers = [...halves].map(([layer, pair]) => [layer, expectPair(layer, { ...pair, rank, failure })] as const)
    if (layers.length === 0)
      throw new Error(`${failure}: found no lora_A and lora_B in it, expected at least one layer`)
    return { base: base ?? '', rank, alpha, layers: new Map(layers), whole }
  } finally {
    await closeSafetensors(file)
  }
}

async function changeWeights(
  weights: Weights,
  { rank, alpha, layers, whole }: LoraAdapter,
  { action, sign }: { action: string; sign: 1 | -1 },
): Promise<Weights> {
  const failure = `Cannot ${action}`
  for (const [layer, { A, B }] of layers) {
    const wanted = [B.shape[0] ?? 0, A.shape[1] ?? 0]
    expectWeight(weights, { name: `${layer}.weight`, shape: wanted, failure })
  }
  for (const [name, { shape }] of whole) expectWeight(weights, { name, shape, failure })

  const result = new Map([...weights, ...whole])
  const session = await sumSession((sign * alpha) / rank)
  try {
    for (const [layer, { A, B }] of layers) {
      const weight = weights.get(`${layer}.weight`)
      if (weight !== undefined) result.set(`${layer}.weight`, await changed(session, { weight, A, B }))
    }
  } finally {
    await disposeSession(session)
  }
  return result
}

/** The training graph's own sum, for layers of any size. */
function sumSession(scale: number): Promise<Session> {
  const [weight, A] = [input('weight', 'float32', ['O', 'I']), input('A', 'float32', ['R', 'I'])]
  const B = input('B', 'float32', ['O', 'R'])
  const sum = addLowRank(weight, { down: A, up: scaleBy(B, scale) })
  return createSession(writeOnnx({ sum }, { parameters: 'inputs', name: 'merge' }).model)
}

async function changed(session: Session, matrices: Readonly<Record<'weight' | 'A' | 'B', Matrix>>): Promise<Matrix> {
  const inputs = Object.fromEntries(
    Object.entries(matrices).map(([name, { shape, data }]) => [name, residentTensor('float32', shape, { data })]),
  )
  const { sum } = await run(session, inputs).finally(() => Object.values(inputs).forEach(disposeTensor))
  if (sum === undefined) throw new Error('Merging returned no weight')
  const data = Float32Array.from(sum.data as Float32Array)
  disposeTensor(sum)
  return { shape: matrices.weight.shape, data }
}

function expectWeight(
  weights: Weights,
  { name, shape, failure }: { name: string; shape: readonly number[]; failure: string },
): void {
  const found = weights.get(name)?.shape
  if (found?.join() === shape.join()) return
  const what = found === undefined ? 'no such weight' : `[${found.join(', ')}]`
  throw new RangeError(
    `${failure}: found ${what} for ${name} in the model, expected [${shape.join(', ')}] as in the adapter`,
  )
}

/** The name of a layer's module in transformers. */
function moduleOf(layer: string): string {
  return toForeign(`${layer}.weight`, writtenLayout).slice(0, -'.weight'.length)
}

type TensorRole = { readonly name: string; readonly layer: string; readonly half: 'A' | 'B' | undefined }

/** What each stored tensor is: half of a layer's change, or a whole weight. */
function renameTensors(file: SafetensorsFile, failure: string): Map<string, TensorRole> {
  const parsed = [...file.tensors].map(([stored, { dtype }]) => {
    const found = /^base_model\.model\.(.+?)(?:\.lora_([AB])\.weight)?$/.exec(stored)
    const [, module = '', half] = found ?? []
    if (!isFloat(dtype))
      throw new Error(`${failure}: tensor ${quote(stored)} is ${dtype}, expected F64, F32, F16 or BF16`)
    return { stored, foreign: half === undefined ? module : `${module}.weight`, half }
  })
  const layout = detectLayout(parsed.map(({ foreign }) => foreign))
  return new Map(
    parsed.map(({ stored, foreign, half }) => {
      const name = layout === undefined ? undefined : toCanonical(foreign, layout)
      if (name === undefined) {
        throw new Error(
          `${failure}: found tensor ${quote(stored)}, expected ${prefix}<module>.lora_A.weight or lora_B.weight for a module of layout ${layout ?? layoutNames.join(', ')}`,
        )
      }
      const layer = name.replace(/\.weight$/, '')
      return [stored, { name, layer, half: half === 'A' || half === 'B' ? half : undefined }]
    }),
  )
}

function expectPair(
  layer: string,
  { A, B, rank, failure }: { A?: Matrix; B?: Matrix; rank: number; failure: string },
): { A: Matrix; B: Matrix } {
  if (A === undefined || B === undefined) {
    throw new Error(`${failure}: found no lora_${A === undefined ? 'A' : 'B'} for ${layer}, expected both halves`)
  }
  if (A.shape.length !== 2 || B.shape.length !== 2 || A.shape[0] !== rank || B.shape[1] !== rank) {
    throw new RangeError(
      `${failure}: found lora_A [${A.shape.join(', ')}] and lora_B [${B.shape.join(', ')}] for ${layer}, expected rank ${rank} as in ${configFile}`,
    )
  }
  return { A, B }
}

const off = z.literal(false).nullish()
const none = z.record(z.string(), z.never()).nullish()

/** Fields that change the equation must be absent or off; all others are only about training. */
const adapterConfig = z.looseObject({
  peft_type: z.literal('LORA'),
  base_model_name_or_path: z.string().nullish(),
  r: z.number().int().positive(),
  lora_alpha: z.number().positive(),
  bias: z.literal('none').default('none'),
  use_rslora: off,
  use_dora: off,
  lora_bias: off,
  fan_in_fan_out: off,
  layer_replication: off,
  rank_pattern: none,
  alpha_pattern: none,
})

function parseConfig(value: unknown, failure: string): z.infer<typeof adapterConfig> {
  const result = adapterConfig.safeParse(value)
  if (result.success) return result.data
  throw new TypeError(
    `${failure}: ${configFile} does not describe a plain LoRA adapter: ${tellWrongFields(result.error, value)}`,
  )
}

async function expectFiles(folder: string, failure: string): Promise<void> {
  const names = await readdir(folder).catch((cause) => {
    const reason = hasCode(cause, 'ENOENT')
      ? 'there is no such folder'
      : hasCode(cause, 'ENOTDIR')
        ? 'it is a file'
        : cause.message
    throw new Error(`${failure}: ${reason}, expected a folder with ${configFile} and ${tensorFile}`, { cause })
  })
  const pickle = names.find((name) => name === 'non_lora_trainables.bin' || name === 'adapter_model.bin')
  if (pickle !== undefined) {
    throw new Error(
      `${failure}: found ${pickle}, a pickle that can run code when opened, expected all tensors in ${tensorFile}`,
    )
  }
  const missing = [configFile, tensorFile].find((name) => !names.includes(name))
  if (missing !== undefined)
    throw new Error(`${failure}: found no ${missing} in it, expected ${configFile} and ${tensorFile}`)
}
