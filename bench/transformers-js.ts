/**
 * The embedded model in transformers.js, from our own export, beside ourselves: time per token, memory, and whether the tokens are the same. transformers.js
 * brings a second ONNX Runtime for pages (140 MB), so it is no dependency: TRANSFORMERS_JS names a folder where `npm i @huggingface/transformers` was run.
 */

import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { exportForTransformersJs } from '../src/generation/export-transformers-js.ts'
import { type BenchResult, median, rounded, runScript } from './measure.ts'
import type { TransformersJsRun } from './transformers-js-run.ts'

const picturebook = fileURLToPath(new URL('../checkpoints/picturebook', import.meta.url))
const questions = [
  'What is in the picture?',
  'Describe the picture in detail.',
  'How many ducks are there?',
  'Is there a dog in the picture?',
]

export async function transformersJsBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const absent = whyAbsent()
  const root = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  const [ours, theirs]: TransformersJsRun[][] = [[], []]
  try {
    const exported = join(root, 'picturebook')
    if (absent === undefined) await exportForTransformersJs(exported, { from: picturebook })
    for (let round = 0; round < (quick ? 2 : 5); round++) {
      console.error(`round ${round + 1} …`)
      ours?.push(await runSide('ours', picturebook))
      if (absent === undefined) theirs?.push(await runSide('theirs', exported))
    }
  } finally {
    await rm(root, { recursive: true })
  }
  const [a, b] = [summaryOf(ours ?? []), summaryOf(theirs ?? [])]
  const same = absent === undefined && sameTokens(ours?.[0], theirs?.[0])
  const line = (measured: string, unit: string, key: keyof typeof a) => ({
    measured,
    'llava-ts': `${a[key]} ${unit}`,
    'transformers.js': absent === undefined ? `${b[key]} ${unit}` : '',
    ratio: absent === undefined ? rounded(b[key] / a[key]) : '',
  })
  return {
    table: [
      line('a token of the answer', 'ms', 'token_ms'),
      line('first token, picture and prompt', 'ms', 'first_token_ms'),
      line('opening', 'ms', 'load_ms'),
      line('peak memory of the process', 'MB', 'peak_memory_mb'),
    ],
    notes: [
      `The embedded model in float32, one thread, ${questions.length} questions about one picture, processes in turns; medians, ratios of theirs to ours.`,
      absent === undefined
        ? `Answers ${same ? 'have the same tokens' : 'differ'}.`
        : `transformers.js was not measured: ${absent}.`,
    ],
    figures: { ours: a, transformers_js: absent === undefined ? { ...b, same_tokens: same } : null },
  }
}

function whyAbsent(): string | undefined {
  const folder = process.env.TRANSFORMERS_JS
  if (folder === undefined) return 'TRANSFORMERS_JS names no folder where npm i @huggingface/transformers was run'
  if (existsSync(join(folder, 'node_modules/@huggingface/transformers'))) return undefined
  return `${folder} has no node_modules/@huggingface/transformers`
}

function runSide(side: 'ours' | 'theirs', folder: string): Promise<TransformersJsRun> {
  return runScript('transformers-js-run.ts', [side, folder, ...questions])
}

function summaryOf(runs: readonly TransformersJsRun[]) {
  const answers = runs.flatMap((run) => run.answers)
  return {
    token_ms: rounded(median(answers.flatMap(({ tokenMs }) => tokenMs))),
    first_token_ms: rounded(median(answers.map(({ firstMs }) => firstMs))),
    load_ms: rounded(median(runs.map(({ loadMs }) => loadMs))),
    peak_memory_mb: rounded(median(runs.map(({ peak }) => peak / 1e6))),
  }
}

function sameTokens(a: TransformersJsRun | undefined, b: TransformersJsRun | undefined): boolean {
  const texts = [a, b].map((run) => JSON.stringify(run?.answers.map(({ tokens }) => tokens)))
  return texts[0] !== undefined && texts[0] === texts[1]
}
