/** Model folders whose GGUF exports llama.cpp was given: fixtures/llama-cpp/make-references.ts makes references of them, tests make them again. */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gguf } from '@huggingface/gguf'
import { loadConfig, loadWeights } from '../src/checkpoint/load.ts'
import { saveCheckpoint } from '../src/checkpoint/save.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { randomWeights, tinyConfig, tinyFiles, tinySiglipConfig } from './tiny-model.ts'

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))

/**
 * Tiny models of random weights, by what is different about them: permuted heads and a class token; a tied head, biases and no class token;
 * grouped keys and a projector of one layer; tiles. `clip-llama` is that of fixtures/parity.
 */
export const referenceModels: Readonly<Record<string, LlavaConfig | undefined>> = {
  'clip-llama': undefined,
  'siglip-qwen2': tinySiglipConfig({
    vision: { imageSide: 30, patch: 7, width: 24, heads: 3 },
    language: { vocabulary: 120, heads: 2, keyValueHeads: 1 },
  }),
  'clip-mistral-linear': tinyConfig({
    vision: { activation: 'gelu' },
    language: { kind: 'mistral', vocabulary: 120, keyValueHeads: 2, ropeTheta: 1e6 },
    projector: { layers: 1, bias: false },
  }),
  'clip-llama-tiles': tinyConfig({
    language: { vocabulary: 120 },
    tiles: { resolutions: tileSizes([8, 16], [16, 8], [16, 16]), unpadding: 'rounded' },
  }),
  'siglip-qwen2-tiles': tinySiglipConfig({
    vision: { imageSide: 28, patch: 7, width: 24, heads: 3 },
    language: { vocabulary: 120, heads: 2, keyValueHeads: 1 },
    tiles: { resolutions: tileSizes([28, 56], [56, 28], [56, 56]), mostTiles: 2, unpadding: 'rounded' },
  }),
}

function tileSizes(...sizes: [number, number][]): { width: number; height: number }[] {
  return sizes.map(([width, height]) => ({ width, height }))
}

/** Writes one of them, complete; tokenizer and picture processor have no part in its references. */
export async function writeReferenceModel(folder: string, name: string): Promise<LlavaConfig> {
  const given = referenceModels[name]
  const stored = join(fixtures, 'parity', name)
  const config = given ?? (await loadConfig(stored))
  const weights = given === undefined ? await loadWeights(stored, config) : randomWeights(config, { seed: 3 })
  const special = ['<unk>', '<s>', '</s>', '<pad>', '<mask>', '<image>']
  await saveCheckpoint(folder, {
    config,
    weights,
    files: companions({ special, bytes: false, side: config.vision.imageSide, tiles: config.tiles }),
  })
  return config
}

/** Ids of a prompt with one picture, of one view unless told. */
export function promptOf({ imageToken, visualTokens }: LlavaConfig, { views = 1 } = {}): number[] {
  return [1, 20, 62, 101, 73, ...Array.from({ length: views * visualTokens }, () => imageToken), 83, 108, 118, 99, 68]
}

/** Models for what does not need to be computed: two kinds of tokenizers, and rows that hold whole blocks of numbers. */
export async function writeTokenizerModel(folder: string, kind: 'sentence-pieces' | 'byte-pairs'): Promise<void> {
  const config = tinyConfig({ vision: { imageSide: 8 }, language: { vocabulary: 512, width: 64, mlpWidth: 96 } })
  const special = ['<unk>', '<s>', '</s>', '<image>', '<pad>']
  const files = kind === 'byte-pairs' ? tinyFiles(config) : companions({ special, bytes: true, side: 8 })
  await saveCheckpoint(folder, { config, weights: randomWeights(config), files })
}

/** Texts with what is easily confused: spaces, digits, words that share beginnings, characters that have no piece. */
export const tokenizedTexts = [
  'What is in the picture?',
  '  two  spaces, pictures and picnics ',
  'three cats left of the tree\nASSISTANT: 12',
  'naïve 🦆 ducks',
] as const

/** WIDTH × HEIGHT × 3 bytes of noise; as high as wide unless told. */
export function noisePicture(width: number, height = width): Uint8Array {
  let state = 7
  return Uint8Array.from({ length: 3 * width * height }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state >>> 24
  })
}

/** SHA-256 of the bytes of every tensor of a block in a GGUF file, by name. */
export async function tensorHashes(path: string): Promise<Record<string, string>> {
  const { tensorInfos, tensorDataOffset } = await gguf(path, { allowLocalFile: true })
  const bytes = readFileSync(path)
  const ordered = tensorInfos.toSorted((a, b) => Number(a.offset - b.offset))
  const hashes = ordered.map(({ name, offset }, i): [string, string] => {
    const end = ordered[i + 1]?.offset ?? BigInt(bytes.length) - tensorDataOffset
    return [name, sha256(bytes.subarray(Number(tensorDataOffset + offset), Number(tensorDataOffset + end)))]
  })
  return Object.fromEntries(hashes.filter(([name]) => name.startsWith('blk.0.')))
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex')
}

function companions({
  special,
  bytes,
  side,
  tiles,
}: {
  special: string[]
  bytes: boolean
  side: number
  tiles?: LlavaConfig['tiles']
}) {
  const files = {
    'tokenizer.json': sentencePieceTokenizer({ special, bytes }),
    'tokenizer_config.json': {
      bos_token: '<s>',
      eos_token: '</s>',
      pad_token: '<pad>',
      unk_token: '<unk>',
      chat_template:
        "{% for message in messages %}{{ message['role'].upper() + ': ' + message['content'] + ' ' }}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    },
    'preprocessor_config.json': {
      image_processor_type:
        tiles === undefined
          ? 'CLIPImageProcessor'
          : tiles.mostTiles === undefined
            ? 'LlavaNextImageProcessor'
            : 'LlavaOnevisionImageProcessor',
      ...(tiles && {
        crop_size: { height: side, width: side },
        image_grid_pinpoints: tiles.resolutions.map(({ width, height }) => [height, width]),
      }),
      size: { height: side, width: side },
      do_center_crop: false,
      resample: 3,
      image_mean: [0.5, 0.4, 0.3],
      image_std: [0.25, 0.3, 0.35],
    },
  }
  return Object.fromEntries(Object.entries(files).map(([name, json]) => [name, JSON.stringify(json)]))
}

const words = ['▁the', '▁tree', '▁three', '▁pictures', '▁picnic', '▁is', '▁in', '▁What', '▁cats', '▁left', '▁of', 'ANT']

/**
 * Special tokens, bytes, longer pieces in order of their scores, characters; merges as transformers lists them for a SentencePiece model: for each
 * piece every way to put it together.
 */
function sentencePieceTokenizer({ special, bytes }: { special: readonly string[]; bytes: boolean }) {
  const spelled = Array.from(
    { length: bytes ? 256 : 0 },
    (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
  )
  const beginnings = words.flatMap((word) => Array.from({ length: word.length - 1 }, (_, i) => word.slice(0, i + 2)))
  const endings = ['re', 'ree', 'ic', 'ct', 'at', 'ft'] // other ways to put the same words together
  const longer = [...new Set([...endings, ...beginnings])].sort((a, b) => a.length - b.length)
  const characters = [
    ...new Set([...'▁?:,.', ...words.join(''), ...(bytes ? 'abcdefghijklmnopqrstuvwxyzASIT0123456789' : '')]),
  ]
  const pieces = [...special, ...spelled, ...longer, ...characters]
  const ids = new Map(pieces.map((piece, id) => [piece, id]))
  const merges = longer.flatMap((piece) =>
    Array.from({ length: piece.length - 1 }, (_, i) => [piece.slice(0, i + 1), piece.slice(i + 1)] as const)
      .filter(([left, right]) => ids.has(left) && ids.has(right))
      .sort((a, b) => ids.get(a[0])! - ids.get(b[0])! || ids.get(a[1])! - ids.get(b[1])!),
  )
  return {
    version: '1.0',
    added_tokens: special.map((content, id) => ({ id, content, special: true, normalized: false })),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(ids),
      merges,
    },
  }
}
