/**
 * What fewer bits do to a model: Kullback–Leibler divergence from float32, agreement on the likeliest token and right answers, on the embedded model and on random
 * weights that are distributed like trained ones; and the same of llama.cpp on the same sequences where LLAMA_CPP_BIN names a folder with its programs, else of its
 * rounding rules.
 *
 * A line is printed as each row is done. `LLAVA_BENCH_ROWS=FILE` keeps them, so that a bench that was stopped goes on where it was.
 */

import { bytesOfWeights, choosePrecision, type Precision, precisions } from '../src/generation/precision.ts'
import { type BenchResult, rounded, surroundings } from './measure.ts'
import { askLlama, llamaServer } from './precision-llama.ts'
import { type PrecisionModel, picturebookModel, randomModel } from './precision-models.ts'
import { asQ4, asQ8 } from './precision-peer.ts'
import { ask, compare, type Quality } from './precision-quality.ts'
import { keepRows } from './precision-rows.ts'
import { llava7B } from './shapes.ts'

const ours = precisions.filter((precision) => precision !== 'f32')
const formats = ['Q8_0', 'Q4_0'] as const

type Column = { readonly model: PrecisionModel; readonly rows: ReadonlyMap<string, Quality> }

export async function precisionBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const started = performance.now()
  const say = (text: string) =>
    console.error(`${((performance.now() - started) / 1000).toFixed(0).padStart(4)} s  ${text}`)
  const models = [await picturebookModel(quick ? 16 : 100), randomModel(quick ? 3 : 12)]
  const columns: Column[] = []
  for (const model of models) {
    say(`${model.name}: ${model.about}`)
    columns.push({ model, rows: await measure(model, { say, sizes: quick ? 'quick' : 'whole' }) })
  }
  const server = llamaServer()
  const automatic = models.map(({ name, config }) => `${choosePrecision(config).precision} for ${name}`)
  return {
    table: [...(columns[0]?.rows.keys() ?? [])].map((name) => ({
      precision: name,
      ...Object.fromEntries(columns.flatMap(({ model, rows }) => cells(model, rows.get(name)))),
      'LLaVA-1.5-7B, GB': isOurs(name) ? rounded(bytesOfWeights(llava7B(), name) / 1e9) : '',
    })),
    notes: [
      ...columns.map(({ model }) => `${model.name}: ${model.about}`),
      'KL: mean over positions, with its standard error, of the divergence of the next-token distribution from that of float32; same token: positions where the likeliest token is the same; right: questions answered rightly.',
      'The KV cache is float32 but where it is named.',
      'Prompts are read at once and answers token by token, as in use, so mixed reads prompts in int8 and answers in int4-128.',
      `auto takes ${automatic.join(' and ')}, ${choosePrecision(llava7B(), { memory: 24e9 }).precision} for LLaVA-1.5-7B in 24 GB.`,
      'absent' in server
        ? `llama.cpp was not measured: ${server.absent}. Its rules for Q8_0 and Q4_0 are applied to the same weights and computed in float32, which leaves out what it loses by rounding activations.`
        : 'llama.cpp: its own programs on the same weights and sequences (cache in float32); pictures come in as we encode them, beside Q8_0 with the encoder rounded by its rule.',
    ],
    figures: Object.fromEntries(
      columns.map(({ model, rows }) => [
        model.name,
        Object.fromEntries(
          [...rows].map(([name, { divergence, uncertainty, agreement, right, asked }]) => [
            name,
            {
              kl: rounded(divergence),
              kl_error: rounded(uncertainty, 2),
              same_token: rounded(agreement, 5),
              ...(asked > 0 && { right, asked }),
            },
          ]),
        ),
      ]),
    ),
  }
}

function cells({ name }: PrecisionModel, quality: Quality | undefined): [string, string][] {
  if (quality === undefined) return []
  const { divergence, uncertainty, agreement, right, asked } = quality
  return [
    [`${name}: KL, nats`, `${divergence.toExponential(2)} ± ${uncertainty.toExponential(0)}`],
    [`${name}: same token, %`, (100 * agreement).toFixed(1)],
    ...(asked > 0 ? [[`${name}: right`, `${right} of ${asked}`] as [string, string]] : []),
  ]
}

function isOurs(name: string): name is Precision {
  return precisions.some((precision) => precision === name)
}

async function measure(
  model: PrecisionModel,
  { say, sizes }: { say: (text: string) => void; sizes: string },
): Promise<ReadonlyMap<string, Quality>> {
  const { commit } = surroundings()
  const rows = await keepRows<Quality>(
    process.env.LLAVA_BENCH_ROWS && `${process.env.LLAVA_BENCH_ROWS}.${model.name}`,
    {
      subject: `${commit} ${sizes}`,
    },
  )
  let reference: ReturnType<typeof ask> | undefined
  const exact = () => (reference ??= ask(model, { precision: 'f32' }))
  const measured = new Map<string, Quality>()
  const row = async (
    name: string,
    said: () => Promise<{ logits: readonly Float32Array[]; right?: number; asked?: number }>,
  ) => {
    const quality = await rows.row(name, async () => {
      const [{ logits: expected }, { logits, right = 0, asked = 0 }] = [await exact(), await said()]
      return { ...compare(expected, logits), right, asked }
    })
    measured.set(name, quality)
    say(cells(model, quality).reduce((line, [key, value]) => `${line}  ${key} ${value}`, name))
  }
  await row('f32', exact)
  for (const precision of ours) await row(precision, () => ask(model, { precision }))
  for (const cacheType of ['float16', 'int8'] as const)
    await row(`f32, cache ${cacheType}`, () => ask(model, { precision: 'f32', cacheType }))
  const server = llamaServer()
  for (const dtype of formats) {
    const program = 'absent' in server ? undefined : server.program
    if (program !== undefined)
      await row(`llama.cpp ${dtype}`, async () => ({ logits: await askLlama(program, model, { dtype }) }))
    else
      await row(`${dtype} (rule)`, () =>
        ask({ ...model, weights: dtype === 'Q8_0' ? asQ8(model.weights) : asQ4(model.weights) }, { precision: 'f32' }),
      )
  }
  return measured
}
