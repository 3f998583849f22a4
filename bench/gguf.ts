/** GGUF files of random weights in the shapes of a LLaVA, for llama.cpp to be measured on. Format: ggml/docs/gguf.md, version 3. */

import { type FileHandle, open } from 'node:fs/promises'
import { countUsedVisionBlocks, type LlavaConfig } from '../src/model/config.ts'

/** Code in the file, numbers per block, bytes per block. */
const types = {
  F32: { code: 0, numbers: 1, bytes: 4 },
  F16: { code: 1, numbers: 1, bytes: 2 },
  Q4_0: { code: 2, numbers: 32, bytes: 18 },
  Q8_0: { code: 8, numbers: 32, bytes: 34 },
  Q6_K: { code: 14, numbers: 256, bytes: 210 },
} as const

type TypeName = keyof typeof types
type GgufTensor = { readonly name: string; readonly type: TypeName; readonly shape: readonly number[] } // fastest axis first
type Value =
  | string
  | number
  | boolean
  | readonly string[]
  | readonly number[]
  | { readonly float: number | readonly number[] }

const alignment = 32

/** The language model: Q4_0, its head Q6_K where rows allow, as llama-quantize makes it. */
export async function writeLanguageGguf(path: string, { language }: LlavaConfig): Promise<void> {
  const { kind, width: D, mlpWidth: M, depth, heads, keyValueHeads, headSize: H, vocabulary: V } = language
  const architecture = kind === 'qwen2' ? 'qwen2' : 'llama'
  const matrix = (name: string, width: number, out: number): GgufTensor => ({ name, type: 'Q4_0', shape: [width, out] })
  const norm = (name: string): GgufTensor => ({ name, type: 'F32', shape: [D] })
  const biases = (n: number): GgufTensor[] =>
    ['q', 'k', 'v'].map((part) => ({
      name: `blk.${n}.attn_${part}.bias`,
      type: 'F32',
      shape: [(part === 'q' ? heads : keyValueHeads) * H],
    }))
  const blocks = Array.from({ length: depth }, (_, n) => [
    norm(`blk.${n}.attn_norm.weight`),
    matrix(`blk.${n}.attn_q.weight`, D, heads * H),
    matrix(`blk.${n}.attn_k.weight`, D, keyValueHeads * H),
    matrix(`blk.${n}.attn_v.weight`, D, keyValueHeads * H),
    ...(language.attentionBias ? biases(n) : []),
    matrix(`blk.${n}.attn_output.weight`, heads * H, D),
    norm(`blk.${n}.ffn_norm.weight`),
    matrix(`blk.${n}.ffn_gate.weight`, D, M),
    matrix(`blk.${n}.ffn_up.weight`, D, M),
    matrix(`blk.${n}.ffn_down.weight`, M, D),
  ])
  // Rows of Q6_K are whole blocks of 256 numbers; llama-quantize takes Q8_0 for others, and a tied head is the token embedding.
  const head = { type: D % 256 === 0 ? 'Q6_K' : 'Q8_0', shape: [D, V] } as const
  const tensors: GgufTensor[] = [
    language.tiedHead ? { name: 'token_embd.weight', ...head } : matrix('token_embd.weight', D, V),
    ...blocks.flat(),
    norm('output_norm.weight'),
    ...(language.tiedHead ? [] : [{ name: 'output.weight', ...head }]),
  ]
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`)
  const words = Array.from({ length: V - 259 }, (_, i) => `▁w${i}`)
  await writeGguf(path, {
    tensors,
    metadata: {
      'general.architecture': architecture,
      [`${architecture}.context_length`]: language.context,
      [`${architecture}.embedding_length`]: D,
      [`${architecture}.block_count`]: depth,
      [`${architecture}.feed_forward_length`]: M,
      [`${architecture}.attention.head_count`]: heads,
      [`${architecture}.attention.head_count_kv`]: keyValueHeads,
      [`${architecture}.attention.layer_norm_rms_epsilon`]: { float: language.normEpsilon },
      [`${architecture}.rope.dimension_count`]: H,
      [`${architecture}.vocab_size`]: V,
      'tokenizer.ggml.model': 'llama',
      'tokenizer.ggml.tokens': ['<unk>', '<s>', '</s>', ...bytes, ...words],
      'tokenizer.ggml.scores': { float: Array.from({ length: V }, (_, i) => -i) },
      'tokenizer.ggml.token_type': Array.from({ length: V }, (_, i) => (i === 0 ? 2 : i < 3 ? 3 : i < 259 ? 6 : 1)),
    },
  })
}

/** The vision encoder and the projector: F16, as llama.cpp's converter makes it. */
export async function writeVisionGguf(path: string, config: LlavaConfig): Promise<void> {
  const { vision, language } = config
  const { width: C, mlpWidth: M, patch, imageSide } = vision
  const blocks = countUsedVisionBlocks(config)
  const affine = (name: string, width: number, out: number): GgufTensor[] => [
    { name: `${name}.weight`, type: 'F16', shape: [width, out] },
    { name: `${name}.bias`, type: 'F32', shape: [out] },
  ]
  const norm = (name: string): GgufTensor[] =>
    ['weight', 'bias'].map((part) => ({ name: `${name}.${part}`, type: 'F32', shape: [C] }))
  const positions = Math.floor(imageSide / patch) ** 2 + (vision.classToken ? 1 : 0)
  const tensors: GgufTensor[] = [
    ...(vision.classToken ? [{ name: 'v.class_embd', type: 'F32', shape: [C] } as const] : []),
    { name: 'v.patch_embd.weight', type: 'F16', shape: [patch, patch, 3, C] },
    ...(vision.patchBias ? [{ name: 'v.patch_embd.bias', type: 'F32', shape: [C] } as const] : []),
    { name: 'v.position_embd.weight', type: 'F32', shape: [C, positions] },
    ...(vision.preNorm ? norm('v.pre_ln') : []),
    ...Array.from({ length: blocks }, (_, n) => [
      ...norm(`v.blk.${n}.ln1`),
      ...['attn_q', 'attn_k', 'attn_v', 'attn_out'].flatMap((part) => affine(`v.blk.${n}.${part}`, C, C)),
      ...norm(`v.blk.${n}.ln2`),
      ...affine(`v.blk.${n}.ffn_up`, C, M),
      ...affine(`v.blk.${n}.ffn_down`, M, C),
    ]).flat(),
    ...affine('mm.0', C, language.width),
    ...affine('mm.2', language.width, language.width),
  ]
  await writeGguf(path, {
    tensors,
    metadata: {
      'general.architecture': 'clip',
      'clip.has_vision_encoder': true,
      'clip.projector_type': 'mlp',
      'clip.use_gelu': vision.activation !== 'quick_gelu',
      'clip.vision.image_size': imageSide,
      'clip.vision.patch_size': patch,
      'clip.vision.embedding_length': C,
      'clip.vision.feed_forward_length': M,
      'clip.vision.projection_dim': 768,
      'clip.vision.block_count': blocks,
      'clip.vision.attention.head_count': vision.heads,
      'clip.vision.attention.layer_norm_epsilon': { float: vision.normEpsilon },
      'clip.vision.image_mean': { float: [0.48, 0.46, 0.41] },
      'clip.vision.image_std': { float: [0.27, 0.26, 0.28] },
    },
  })
}

async function writeGguf(
  path: string,
  { tensors, metadata }: { tensors: readonly GgufTensor[]; metadata: Readonly<Record<string, Value>> },
): Promise<void> {
  const handle = await open(path, 'wx')
  try {
    const sizes = tensors.map(({ type, shape }) => {
      const { numbers, bytes } = types[type]
      return (shape.reduce((product, size) => product * size, 1) / numbers) * bytes
    })
    let offset = 0
    const offsets = sizes.map((size) => {
      const start = offset
      offset += aligned(size)
      return start
    })
    const head = Buffer.concat([
      Buffer.from('GGUF'),
      u32(3),
      u64(tensors.length),
      u64(Object.keys(metadata).length),
      ...Object.entries(metadata).flatMap(([key, value]) => [text(key), encoded(value)]),
      ...tensors.flatMap(({ name, type, shape }, index) => [
        text(name),
        u32(shape.length),
        ...shape.map(u64),
        u32(types[type].code),
        u64(offsets[index] ?? 0),
      ]),
    ])
    const start = aligned(head.byteLength)
    await handle.write(head, 0, head.byteLength, 0)
    for (const [index, { type }] of tensors.entries()) {
      await writeNumbers(handle, { type, start: start + (offsets[index] ?? 0), length: sizes[index] ?? 0 })
    }
    await handle.truncate(start + offset)
  } finally {
    await handle.close()
  }
}

const patterns = new Map<TypeName, Buffer>()

/** Random codes with small scales, over and over. */
function pattern(type: TypeName): Buffer {
  const known = patterns.get(type)
  if (known !== undefined) return known
  const { bytes } = types[type]
  const buffer = Buffer.alloc(bytes * 65_536)
  const small = 0x1c00 // 2^−8 as float16
  for (let i = 0; i < buffer.length; i++) buffer[i] = (Math.imul(i, 2_654_435_761) >>> 13) & 0xff
  for (let at = 0; at < buffer.length; at += bytes) {
    if (type === 'F32') buffer.writeFloatLE(0.02 * Math.sin(at), at)
    else if (type === 'F16') buffer.writeUInt16LE(small + ((at >> 3) & 0x3ff) + (at & 2 ? 0x8000 : 0), at)
    else if (type === 'Q4_0' || type === 'Q8_0') buffer.writeUInt16LE(small, at)
    else buffer.writeUInt16LE(0x0c00, at + bytes - 2)
  }
  patterns.set(type, buffer)
  return buffer
}

async function writeNumbers(
  handle: FileHandle,
  { type, start, length }: { type: TypeName; start: number; length: number },
): Promise<void> {
  const numbers = pattern(type)
  for (let done = 0; done < length; ) {
    const { bytesWritten } = await handle.write(numbers, 0, Math.min(numbers.length, length - done), start + done)
    done += bytesWritten
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment
}

/** Type code and value; whole numbers are uint32 (int32 in arrays), others float32. */
function encoded(value: Value): Buffer {
  if (typeof value === 'string') return Buffer.concat([u32(8), text(value)])
  if (typeof value === 'boolean') return Buffer.concat([u32(7), Buffer.from([value ? 1 : 0])])
  if (typeof value === 'number') return Buffer.concat([u32(4), u32(value)])
  if ('float' in value) {
    const { float } = value
    if (typeof float === 'number') return Buffer.concat([u32(6), f32(float)])
    return Buffer.concat([u32(9), u32(6), u64(float.length), ...float.map(f32)])
  }
  const [first] = value
  if (typeof first === 'string')
    return Buffer.concat([u32(9), u32(8), u64(value.length), ...value.map((word) => text(`${word}`))])
  return Buffer.concat([u32(9), u32(5), u64(value.length), ...value.map((number) => u32(Number(number)))])
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([u64(bytes.length), bytes])
}

function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}

function u64(value: number): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}

function f32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeFloatLE(value)
  return buffer
}
