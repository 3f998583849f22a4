/** What `llava generate` says: how the asking goes, what a run would cost, and what came of it. */

import { join } from 'node:path'
import type { AskProgress } from '../instruction-data/ask-all.ts'
import type { DataReport } from '../instruction-data/assemble.ts'
import { costOf, estimateTokens, type Price } from '../instruction-data/pace.ts'
import { type Prompts, type ResponseType, responseTypes } from '../instruction-data/prompts.ts'
import { requestFor, type Task, type TeacherSettings } from '../instruction-data/requests.ts'
import {
  clearStatus,
  drawStatus,
  formatCount,
  formatSeconds,
  printable,
  progressBar,
  quoted,
  type Terminal,
  writeLine,
} from './terminal.ts'

const linesEveryMs = 30_000 // where lines cannot be redrawn
const drawEveryMs = 100

/** Shows how the asking goes: a line that is redrawn on a terminal, one every half a minute elsewhere. */
export function askingProgress({
  terminal,
  tasks,
  priced,
  now = () => performance.now(),
}: {
  terminal: Terminal
  tasks: number
  priced: boolean
  now?: () => number
}) {
  const begun = now()
  let shownAt = begun
  let latest: AskProgress | undefined
  return {
    show: (progress: AskProgress) => {
      latest = progress
      const due = now() - shownAt >= (terminal.live ? drawEveryMs : linesEveryMs)
      if (!due) return
      shownAt = now()
      const line = progressLine(progress, { tasks, priced, seconds: (now() - begun) / 1000 })
      if (terminal.live) drawStatus(terminal, line)
      else writeLine(terminal, line)
    },
    /** Takes the line away; says how a run that was interrupted goes on. */
    end: ({ answers, interrupted, folder }: { answers: number; interrupted: boolean; folder: string }) => {
      clearStatus(terminal)
      if (interrupted)
        writeLine(
          terminal,
          `Interrupted with ${answers} answers in ${quoted(folder)}: the same command goes on from there`,
        )
      else if (latest !== undefined && latest.dropped > 0) {
        writeLine(
          terminal,
          `${latest.dropped} requests were given up, the latest because ${printable(latest.lastDropped ?? '')}`,
        )
      }
    },
  }
}

function progressLine(
  progress: AskProgress,
  { tasks, priced, seconds }: { tasks: number; priced: boolean; seconds: number },
): string {
  const { tasks: settled, known, inFlight, limit, retries, dropped, usd, trouble } = progress
  const fresh = settled - known
  const rate = fresh / seconds
  const left = fresh > 0 ? `, ${formatSeconds(Math.max(0, tasks - settled) / rate)} left` : ''
  return [
    `${progressBar(settled / Math.max(1, tasks), { width: 20 })} ${formatCount(settled)} of about ${formatCount(Math.round(tasks))}`,
    `${(rate * 60).toFixed(0)} a minute${left}`,
    `${inFlight} of ${limit} on their way`,
    ...(priced ? [`$${usd.toFixed(2)}`] : []),
    ...(retries > 0 ? [`${retries} retries`] : []),
    ...(dropped > 0 ? [`${dropped} given up`] : []),
    ...(trouble === undefined ? [] : [printable(trouble)]),
  ].join(' · ')
}

type Estimate = { requests: number; input: number }

/** Prompts of the first pictures in full, and what all tasks would take: responses are taken to be as long as those of the examples. */
export async function estimateLines(
  tasks: AsyncIterable<Task>,
  {
    prompts,
    settings,
    price,
    maxUsd,
    samples,
  }: {
    prompts: Prompts
    settings: TeacherSettings
    price: Price | undefined
    maxUsd: number | undefined
    samples: number
  },
): Promise<string[]> {
  const estimates = new Map<ResponseType, Estimate>()
  const lines: string[] = []
  let shown = 0
  for await (const task of tasks) {
    const { messages } = requestFor(task, { prompts, settings })
    const before = estimates.get(task.type) ?? { requests: 0, input: 0 }
    estimates.set(task.type, { requests: before.requests + 1, input: before.input + estimateTokens(messages) })
    if (shown >= samples) continue
    shown += 1
    lines.push(
      `=== picture ${printable(task.picture.id)}, ${task.type}${task.question === undefined ? '' : `, "${task.question}"`}`,
    )
    for (const { role, content } of messages) lines.push(`--- ${role}`, printable(content))
    lines.push('')
  }
  const all = { requests: 0, input: 0, output: 0 }
  for (const type of responseTypes) {
    const { requests = 0, input = 0 } = estimates.get(type) ?? {}
    if (requests === 0) continue
    const output = requests * typicalOutput(prompts, type)
    lines.push(describe(type, { requests, input, output, price }))
    all.requests += requests
    all.input += input
    all.output += output
  }
  lines.push(describe('all', { ...all, price }))
  if (price === undefined) lines.push('Give --price IN,OUT (dollars for a million tokens) to see what that costs')
  else {
    const most = costOf({ input: all.input, output: all.requests * settings.maxTokens }, price)
    lines.push(`At most ${dollars(most)} without retries, if every response had ${settings.maxTokens} tokens`)
    if (maxUsd !== undefined && most > maxUsd)
      lines.push(`--max-usd ${maxUsd} ends the run where it might cost more; the same command with more of it goes on`)
  }
  return lines
}

/** `$12.50`, and of small sums what can be told apart. */
function dollars(usd: number): string {
  return `$${usd.toFixed(usd >= 1 ? 2 : 4)}`
}

function typicalOutput(prompts: Prompts, type: ResponseType): number {
  const answers = prompts[type].examples.map(({ answer }) => estimateTokens([{ content: answer }]))
  return answers.length === 0 ? 300 : Math.round(answers.reduce((sum, tokens) => sum + tokens, 0) / answers.length)
}

function describe(
  name: string,
  { requests, input, output, price }: { requests: number; input: number; output: number; price: Price | undefined },
): string {
  const cost = price === undefined ? '' : `, about ${dollars(costOf({ input, output }, price))}`
  return `${name.padEnd(20)} ${formatCount(requests).padStart(8)} requests, about ${formatCount(input)} tokens in and ${formatCount(output)} out${cost}`
}

/** Rows and pass rates, a line per type and one per validator that found something. */
export function reportLines(report: DataReport, { folder, strict }: { folder: string; strict: boolean }): string[] {
  const types = responseTypes.flatMap((type) => {
    const found = report[type]
    return found === undefined ? [] : [{ type, ...found }]
  })
  const rows = types.reduce((sum, one) => sum + one.rows, 0)
  const lines = types.map(({ type, tasks, rows: made, rejected, unanswered, yes, no }) => {
    const balance = yes + no === 0 ? '' : `, ${yes} yes and ${no} no`
    return `${type.padEnd(20)} ${String(made).padStart(7)} rows of ${tasks}, ${rejected} rejected, ${unanswered} unanswered${balance}`
  })
  const flagged = types.flatMap(({ type, tasks, unanswered, failed }) =>
    Object.entries(failed).map(([validator, count]) => {
      const judged = tasks - unanswered
      return `  ${validator.padEnd(18)} ${(100 * (1 - count / judged)).toFixed(1).padStart(6)} % of ${judged} pass in ${type}`
    }),
  )
  const verdicts =
    flagged.length === 0
      ? ['Every validator passed every response']
      : [strict ? 'Left out:' : 'Tagged, and still there unless they could not be read:', ...flagged]
  return [...lines, ...verdicts, `${rows} rows in ${quoted(join(folder, 'llava.json'))}`]
}
