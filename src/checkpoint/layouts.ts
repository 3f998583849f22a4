/** The names of LLaVA's tensors: ours, with the shapes a config implies, and the tables that rename published layouts to ours. */

import { countPatches, countUsedVisionBlocks, type LlavaConfig } from '../model/config.ts'

export type LayoutName = 'hugging-face' | 'hugging-face-2025' | 'original'

/** Pairs of ours and theirs; `#` stands for a block number, `*` for `weight` or `bias`. */
export type Rows = readonly (readonly [ours: string, theirs: string])[]

export const visionRows: Rows = [
  ['patchEmbedding.*', 'embeddings.patch_embedding.*'],
  ['classEmbedding', 'embeddings.class_embedding'],
  ['positionEmbedding', 'embeddings.position_embedding.weight'],
  ['preNorm.*', 'pre_layrnorm.*'], // misspelt in every published file
  ['blocks.#.norm1.*', 'encoder.layers.#.layer_norm1.*'],
  ['blocks.#.attention.query.*', 'encoder.layers.#.self_attn.q_proj.*'],
  ['blocks.#.attention.key.*', 'encoder.layers.#.self_attn.k_proj.*'],
  ['blocks.#.attention.value.*', 'encoder.layers.#.self_attn.v_proj.*'],
  ['blocks.#.attention.output.*', 'encoder.layers.#.self_attn.out_proj.*'],
  ['blocks.#.norm2.*', 'encoder.layers.#.layer_norm2.*'],
  ['blocks.#.mlp.up.*', 'encoder.layers.#.mlp.fc1.*'],
  ['blocks.#.mlp.down.*', 'encoder.layers.#.mlp.fc2.*'],
  ['postNorm.*', 'post_layernorm.*'],
]

const languageRows: Rows = [
  ['tokenEmbedding.weight', 'embed_tokens.weight'],
  ['blocks.#.norm1.weight', 'layers.#.input_layernorm.weight'],
  ['blocks.#.attention.query.*', 'layers.#.self_attn.q_proj.*'],
  ['blocks.#.attention.key.*', 'layers.#.self_attn.k_proj.*'],
  ['blocks.#.attention.value.*', 'layers.#.self_attn.v_proj.*'],
  ['blocks.#.attention.output.weight', 'layers.#.self_attn.o_proj.weight'],
  ['blocks.#.norm2.weight', 'layers.#.post_attention_layernorm.weight'],
  ['blocks.#.mlp.gate.weight', 'layers.#.mlp.gate_proj.weight'],
  ['blocks.#.mlp.up.weight', 'layers.#.mlp.up_proj.weight'],
  ['blocks.#.mlp.down.weight', 'layers.#.mlp.down_proj.weight'],
  ['norm.weight', 'norm.weight'],
]

type Layout = { vision: string; language: string; head: string; projector: Rows; newline: string }

/** Where each published layout puts the boxes of the figure. */
const layouts: Record<LayoutName, Layout> = {
  /** LlavaForConditionalGeneration, LlavaNext… and LlavaOnevision… as they are stored on the hub, and as transformers still writes it. */
  'hugging-face': {
    vision: 'vision_tower.vision_model.',
    language: 'language_model.model.',
    head: 'language_model.lm_head.weight',
    projector: [
      ['layers.0.*', 'multi_modal_projector.linear_1.*'],
      ['layers.1.*', 'multi_modal_projector.linear_2.*'],
    ],
    newline: 'image_newline',
  },
  /** The module names of transformers since 4.52. */
  'hugging-face-2025': {
    vision: 'model.vision_tower.vision_model.',
    language: 'model.language_model.',
    head: 'lm_head.weight',
    projector: [
      ['layers.0.*', 'model.multi_modal_projector.linear_1.*'],
      ['layers.1.*', 'model.multi_modal_projector.linear_2.*'],
    ],
    newline: 'model.image_newline',
  },
  /** haotian-liu/LLaVA: one linear layer in the first release, an MLP since 1.5. */
  original: {
    vision: 'model.vision_tower.vision_tower.vision_model.',
    language: 'model.',
    head: 'lm_head.weight',
    projector: [
      ['layers.0.*', 'model.mm_projector.*'],
      ['layers.0.*', 'model.mm_projector.0.*'],
      ['layers.1.*', 'model.mm_projector.2.*'],
    ],
    newline: 'model.image_newline',
  },
}

/** Harmless surplus: constants that old files store, and SigLIP's pooling head, which LLaVA does not use. */
const ignored = [
  /(^|\.)layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/,
  /(^|\.)vision_model\.embeddings\.position_ids$/,
  /(^|\.)vision_model\.head\.[a-z0-9_.]+$/,
]

export const layoutNames = Object.keys(layouts) as LayoutName[]

const tables = new Map(layoutNames.map((name) => [name, buildTable(layouts[name])]))

/** Whether a stored tensor is harmless surplus that no model needs. */
export function isIgnored(foreign: string): boolean {
  return ignored.some((pattern) => pattern.test(foreign))
}

/** Our name of a stored tensor, `undefined` when the layout does not know it. */
export function toCanonical(foreign: string, layout: LayoutName): string | undefined {
  const { number, pattern } = abstractBlock(foreign, 'layers')
  return tables.get(layout)?.toOurs.get(pattern)?.replace('#', number)
}

/** The name that a tensor of a vision encoder's own checkpoint has inside a model of the original layout. */
export function encoderAlone(foreign: string): string {
  return layouts.original.vision.replace('vision_model.', '') + foreign
}

/** The name under which a layout stores one of our tensors. Errors: `RangeError` for a name that is not ours. */
export function toForeign(canonical: string, layout: LayoutName): string {
  const { number, pattern } = abstractBlock(canonical, 'blocks')
  const foreign = tables.get(layout)?.toTheirs.get(pattern)
  if (foreign === undefined)
    throw new RangeError(`Cannot rename tensor ${canonical}: layout ${layout} has no place for it`)
  return foreign.replace('#', number)
}

/** The layout that knows most of the names, `undefined` when none knows any. */
export function detectLayout(names: Iterable<string>): LayoutName | undefined {
  const list = [...names]
  const known = layoutNames.map((layout) => ({
    layout,
    count: list.filter((name) => toCanonical(name, layout) !== undefined).length,
  }))
  const best = known.reduce((a, b) => (b.count > a.count ? b : a))
  return best.count === 0 ? undefined : best.layout
}

/** Every tensor of the model, by our name, with its shape. Linear weights are [out, in], as in the files. */
export function expectedTensors(config: LlavaConfig): Map<string, readonly number[]> {
  return new Map([...visionTensors(config), ...projectorTensors(config), ...languageTensors(config)])
}

/** Names a checkpoint may lack: what comes after the block whose output LLaVA takes has no effect on it. */
export function optionalTensors(config: LlavaConfig): Set<string> {
  const used = countUsedVisionBlocks(config)
  const names = [...visionTensors(config)].map(([name]) => name)
  return new Set(
    names.filter((name) => {
      const block = /^visionEncoder\.blocks\.(\d+)\./.exec(name)?.[1]
      return block === undefined ? name.startsWith('visionEncoder.postNorm.') : Number(block) >= used
    }),
  )
}

export type Shapes = Generator<[string, readonly number[]]>

export function* visionTensors({ vision }: Pick<LlavaConfig, 'vision'>): Shapes {
  const { width: C, patch } = vision
  const root = 'visionEncoder'
  yield [`${root}.patchEmbedding.weight`, [C, 3, patch, patch]]
  if (vision.patchBias) yield [`${root}.patchEmbedding.bias`, [C]]
  if (vision.classToken) yield [`${root}.classEmbedding`, [C]]
  yield [`${root}.positionEmbedding`, [countPatches(vision) + (vision.classToken ? 1 : 0), C]]
  if (vision.preNorm) yield* affine(`${root}.preNorm`, [C])
  yield* encoderBlocks(root, vision)
  yield* affine(`${root}.postNorm`, [C])
}

/** The blocks of a vision or text encoder. */
export function* encoderBlocks(
  root: string,
  { width, mlpWidth, depth }: { width: number; mlpWidth: number; depth: number },
): Shapes {
  for (let n = 0; n < depth; n++) {
    const block = `${root}.blocks.${n}`
    yield* affine(`${block}.norm1`, [width])
    for (const part of ['query', 'key', 'value', 'output']) yield* affine(`${block}.attention.${part}`, [width, width])
    yield* affine(`${block}.norm2`, [width])
    yield* affine(`${block}.mlp.up`, [mlpWidth, width])
    yield* affine(`${block}.mlp.down`, [width, mlpWidth])
  }
}

function* projectorTensors({ vision, language, projector, tiles }: LlavaConfig): Shapes {
  for (let n = 0; n < projector.layers; n++) {
    const shape = [language.width, n === 0 ? vision.width : language.width]
    yield* affine(`projector.layers.${n}`, shape, { bias: projector.bias })
  }
  if (tiles !== undefined) yield ['projector.newline', [language.width]]
}

export function* languageTensors({ language }: Pick<LlavaConfig, 'language'>): Shapes {
  const { width: D, vocabulary: V, headSize: H, mlpWidth, attentionBias: bias } = language
  const queries = language.heads * H
  const keys = language.keyValueHeads * H
  yield ['languageModel.tokenEmbedding.weight', [V, D]]
  for (let n = 0; n < language.depth; n++) {
    const block = `languageModel.blocks.${n}`
    yield [`${block}.norm1.weight`, [D]]
    yield* affine(`${block}.attention.query`, [queries, D], { bias })
    yield* affine(`${block}.attention.key`, [keys, D], { bias })
    yield* affine(`${block}.attention.value`, [keys, D], { bias })
    yield [`${block}.attention.output.weight`, [D, queries]]
    yield [`${block}.norm2.weight`, [D]]
    yield [`${block}.mlp.gate.weight`, [mlpWidth, D]]
    yield [`${block}.mlp.up.weight`, [mlpWidth, D]]
    yield [`${block}.mlp.down.weight`, [D, mlpWidth]]
  }
  yield ['languageModel.norm.weight', [D]]
  if (!language.tiedHead) yield ['languageModel.head.weight', [V, D]]
}

/** A weight and the bias of its first dimension. */
export function* affine(name: string, shape: readonly number[], { bias = true }: { bias?: boolean } = {}): Shapes {
  yield [`${name}.weight`, shape]
  if (bias) yield [`${name}.bias`, shape.slice(0, 1)]
}

function buildTable({ vision, language, head, projector, newline }: Layout): Table {
  return tableOf([
    ...visionRows.map(([ours, theirs]) => [`visionEncoder.${ours}`, vision + theirs] as const),
    ...languageRows.map(([ours, theirs]) => [`languageModel.${ours}`, language + theirs] as const),
    ...projector.map(([ours, theirs]) => [`projector.${ours}`, theirs] as const),
    ['languageModel.head.weight', head],
    ['projector.newline', newline],
  ])
}

/** Patterns of names in both directions. */
export type Table = { readonly toOurs: ReadonlyMap<string, string>; readonly toTheirs: ReadonlyMap<string, string> }

export function tableOf(rows: Rows): Table {
  const toOurs = new Map<string, string>()
  const toTheirs = new Map<string, string>()
  for (const [ours, theirs] of rows) {
    for (const suffix of ours.endsWith('*') ? ['weight', 'bias'] : ['']) {
      toOurs.set(theirs.replace('*', suffix), ours.replace('*', suffix))
      toTheirs.set(ours.replace('*', suffix), theirs.replace('*', suffix)) // the last of two spellings is written
    }
  }
  return { toOurs, toTheirs }
}

/** Splits a name into a pattern with `#` and its block number: "layers.12.norm" → "layers.#.norm" and "12". */
export function abstractBlock(name: string, word: 'layers' | 'blocks'): { number: string; pattern: string } {
  const found = new RegExp(`(?<=(?:^|\\.)${word}\\.)(?:0|[1-9]\\d*)(?=\\.)`).exec(name)
  if (name.includes('#')) return { number: '', pattern: '' } // a name from a file must not look like a pattern
  if (found === null || name.startsWith('projector.')) return { number: '', pattern: name }
  const number = found[0]
  return { number, pattern: `${name.slice(0, found.index)}#${name.slice(found.index + number.length)}` }
}
