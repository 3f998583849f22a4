/** The language model as llama.cpp stores it: metadata and tensors of one GGUF file (architectures `llama` and `qwen2`). */

import type { LanguageModelConfig } from '../model/config.ts'
import { fileCodes, fittingDtype, type GgufDtype } from './gguf-numbers.ts'
import type { GgufMetadata, GgufTensor } from './gguf-writer.ts'
import type { WeightReader } from './weight-reader.ts'

const blockNames: ReadonlyMap<string, string> = new Map([
  ['norm1', 'attn_norm'],
  ['attention.query', 'attn_q'],
  ['attention.key', 'attn_k'],
  ['attention.value', 'attn_v'],
  ['attention.output', 'attn_output'],
  ['norm2', 'ffn_norm'],
  ['mlp.gate', 'ffn_gate'],
  ['mlp.up', 'ffn_up'],
  ['mlp.down', 'ffn_down'],
])

const outerNames: ReadonlyMap<string, string> = new Map([
  ['tokenEmbedding', 'token_embd'],
  ['norm', 'output_norm'],
  ['head', 'output'],
])

/** Errors: `Error` for a form that llama.cpp has no architecture for. */
export function languageMetadata(
  language: LanguageModelConfig,
  { name, dtype }: { name: string; dtype: GgufDtype },
): GgufMetadata {
  if (language.kind === 'qwen2' && language.heads * language.headSize !== language.width) {
    throw new Error(
      `Cannot export to GGUF: ${language.heads} heads of ${language.headSize} are not the width ${language.width}, which llama.cpp expects of Qwen2`,
    )
  }
  const architecture = language.kind === 'qwen2' ? 'qwen2' : 'llama' // Mistral is LLaMA with other numbers
  const numbers: Record<string, GgufMetadata[string]> = {
    context_length: { uint32: language.context },
    embedding_length: { uint32: language.width },
    block_count: { uint32: language.depth },
    feed_forward_length: { uint32: language.mlpWidth },
    vocab_size: { uint32: language.vocabulary },
    'attention.head_count': { uint32: language.heads },
    'attention.head_count_kv': { uint32: language.keyValueHeads },
    'attention.key_length': { uint32: language.headSize },
    'attention.value_length': { uint32: language.headSize },
    'attention.layer_norm_rms_epsilon': { float32: language.normEpsilon },
    'rope.dimension_count': { uint32: language.headSize },
    'rope.freq_base': { float32: language.ropeTheta },
  }
  return {
    'general.architecture': { string: architecture },
    'general.type': { string: 'model' },
    'general.name': { string: name },
    'general.file_type': { uint32: fileCodes[dtype] },
    'general.quantization_version': { uint32: 2 },
    ...Object.fromEntries(Object.entries(numbers).map(([key, value]) => [`${architecture}.${key}`, value])),
  }
}

/** The tensors in the order of the computation; norms and biases stay float32, the head is never below 8 bits. */
export function languageTensors(
  language: LanguageModelConfig,
  { weights, dtype }: { weights: WeightReader; dtype: GgufDtype },
): GgufTensor[] {
  const names = [...weights.shapes.keys()].filter((ours) => ours.startsWith('languageModel.'))
  return names.map((ours) => {
    const shape = weights.shapes.get(ours) ?? []
    return {
      name: nameOf(ours),
      shape,
      dtype: dtypeOf(ours, { shape, dtype, tied: language.tiedHead }),
      read: async () => rotated(ours, { values: await weights.read(ours), language }),
    }
  })
}

function nameOf(ours: string): string {
  const [, block, part = '', kind = ''] = /^languageModel\.(?:blocks\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(ours) ?? []
  if (block !== undefined) return `blk.${block}.${blockNames.get(part)}.${kind}`
  return `${outerNames.get(part)}.${kind}`
}

function dtypeOf(
  ours: string,
  { shape, dtype, tied }: { shape: readonly number[]; dtype: GgufDtype; tied: boolean },
): GgufDtype {
  if (shape.length === 1) return 'F32'
  const isHead = ours.endsWith(tied ? 'tokenEmbedding.weight' : 'head.weight')
  // Errors of the head go straight into the logits.
  return fittingDtype(isHead && dtype === 'Q4_0' ? 'Q8_0' : dtype, shape.at(-1) ?? 0)
}

/**
 * LLaMA in llama.cpp rotates neighbouring pairs (2i, 2i + 1), Hugging Face the two halves (i, i + H/2) of a head: its query and key rows
 * are interleaved. Qwen2 keeps the halves.
 */
function rotated(
  ours: string,
  { values, language }: { values: Float32Array; language: LanguageModelConfig },
): Float32Array {
  if (language.kind === 'qwen2' || !/\.attention\.(query|key)\.weight$/.test(ours)) return values
  return interleaveHalves(values, { headSize: language.headSize, width: language.width })
}

/** Rows 0, H/2, 1, H/2 + 1, … of every head of H rows. */
function interleaveHalves(
  values: Float32Array,
  { headSize, width }: { headSize: number; width: number },
): Float32Array {
  const result = new Float32Array(values.length)
  for (let row = 0; row < values.length / width; row++) {
    const [head, place] = [Math.floor(row / headSize), row % headSize]
    const from = head * headSize + (place % 2) * (headSize / 2) + Math.floor(place / 2)
    result.set(values.subarray(from * width, (from + 1) * width), row * width)
  }
  return result
}
