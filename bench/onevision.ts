/**
 * The whole of LLaVA-OneVision-0.5B (SigLIP so400m-384, Qwen2 0.5B) on random weights, two threads: a view of a picture, the prompt, the answer, a second turn, memory;
 * beside llama.cpp where LLAMA_CPP_BIN names a folder with its programs.
 */

import { type InferenceRun, textTokens } from './inference-run.ts'
import { type BenchResult, median, rounded, runScript } from './measure.ts'
import { precision } from './onevision-run.ts'
import { oneVision05B } from './shapes.ts'
import { figuresOf, tableOf, takeTurns } from './turns.ts'

export async function oneVisionBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const config = oneVision05B()
  const runOurs = (mode: 'single' | 'batch') => runScript<InferenceRun>('onevision-run.ts', [mode, quick ? '1' : '2'])
  const turns = await takeTurns(config, { rounds: quick ? 1 : 3, runOurs })
  const open = median(turns.runs.map(({ open }) => open.ms))
  const picture = 'a view of a picture, SigLIP so400m-384 and projector'
  const empty = { 'llama.cpp': '', ratio: '', aim: '', limit: '' }
  return {
    table: [
      ...tableOf(turns, { picture, context: config.visualTokens + textTokens }),
      { measured: 'opening the converted model', 'llava-ts': `${rounded(open)} ms`, ...empty },
    ],
    notes: [
      `Shapes of LLaVA-OneVision-0.5B, all 26 and 24 blocks, random weights, 2 threads; precision ${precision}. llama.cpp: Q4_0 (head Q8_0), vision encoder in F16.`,
      'One view per picture, as OneVision reads several pictures; tiles are further views of the same cost, and their arrangement is not compared.',
      ...turns.absent,
    ],
    figures: { ...figuresOf(turns), open_ms: rounded(open) },
  }
}
