/** The middle of `llava generate`: asks for what is not answered yet, from here or through workers. */

import { join } from 'node:path'
import { type AnswerJournal, openJournal } from '../instruction-data/answer-journal.ts'
import { type AskProgress, askAll } from '../instruction-data/ask-all.ts'
import { isUsable, readAndJudge } from '../instruction-data/assemble.ts'
import { adaptiveConcurrency, costOf, createBucket, createBudget } from '../instruction-data/pace.ts'
import type { Teacher } from '../instruction-data/teacher.ts'
import type { CommandContext } from './context.ts'
import { type Run, tasksOf } from './generate-data.ts'
import { teacherNamed } from './generate-options.ts'
import { askingProgress } from './generate-progress.ts'
import { openQueue } from './generate-queue.ts'
import { runFiles } from './generate-run.ts'

/**
 * @returns undefined when nothing was to be asked
 * @throws Error when no further request can succeed
 */
export async function ask(run: Run, context: CommandContext): Promise<AskProgress | undefined> {
  const { options, settings } = run
  if (!options.ask) return undefined
  const journal = await openJournal(join(options.out, runFiles.answers), { durable: settings.model !== 'rules' })
  try {
    if (options.queue === undefined) return await askTeacher(localTeacher(run), { run, journal, context })
    const queue = await openQueue(run, { journal, context })
    try {
      return await askTeacher(queue.teacher, { run, journal, context })
    } finally {
      await queue.close()
    }
  } finally {
    await journal.close()
  }
}

function localTeacher({ options, pictures, baseUrl }: Run): Teacher {
  const { teacher, picturebook = false, timeout } = options
  return teacherNamed(teacher, {
    baseUrl,
    timeoutMs: timeout * 1000,
    picturebook,
    categories: pictures.categories,
    env: process.env,
  })
}

async function askTeacher(
  teacher: Teacher,
  { run, journal, context: { stderr, watch } }: { run: Run; journal: AnswerJournal; context: CommandContext },
): Promise<AskProgress> {
  const { options, pictures, settings, prompts, validators } = run
  const { out, price = { input: 0, output: 0 }, strict = false } = options
  const total = Math.min(pictures.pictures, options.limit ?? Number.POSITIVE_INFINITY)
  const shown = askingProgress({
    terminal: stderr,
    tasks: (total * options.perPicture) / (options.shard?.of ?? 1),
    priced: options.price !== undefined,
  })
  const bucketOf = (perMinute: number | undefined) =>
    perMinute === undefined || options.queue !== undefined ? undefined : createBucket({ perMinute }) // workers share theirs
  try {
    const spent = costOf(journal.spent(), price) + costOf(journal.lost(), price)
    const most = teacher.paid ? options.concurrency : 256
    return await askAll(tasksOf(run), {
      teacher,
      journal,
      prompts,
      settings,
      price,
      concurrency: adaptiveConcurrency({ first: teacher.paid ? Math.min(4, most) : most, most }),
      requestBucket: bucketOf(options.rpm),
      tokenBucket: bucketOf(options.tpm),
      budget: createBudget({ spent, most: options.maxUsd ?? Number.POSITIVE_INFINITY }),
      transportRetries: options.retries,
      validationRetries: options.validationRetries,
      // Only with --strict does it matter here what validators find; they come again when the data is written.
      usable: (task, answer) =>
        isUsable(readAndJudge(task, { answer, validators: strict ? validators : [] }), { strict }),
      patienceMs: options.patience * 60_000,
      signal: watch.signal,
      onProgress: shown.show,
    })
  } finally {
    shown.end({ answers: journal.answers(), interrupted: watch.interruption() !== undefined, folder: out })
  }
}
