/** One part of the bench in a process of its own: `node instruction-data-run.ts FOLDER generate|teacher`. The last line is a JSON document. */

import { join } from 'node:path'
import { paperTypes } from '../src/cli/generate-options.ts'
import { tasksIn } from '../src/cli/generate-run.ts'
import { packageFile } from '../src/cli/package-files.ts'
import { runProgram } from '../src/cli/program.ts'
import { createObjectFinder } from '../src/instruction-data/object-names.ts'
import { loadPrompts } from '../src/instruction-data/prompts.ts'
import { requestFor, type TeacherRequest } from '../src/instruction-data/requests.ts'
import { rulesTeacher } from '../src/instruction-data/rules-teacher.ts'
import { categories, cocoPaths } from './made-up-coco.ts'
import { peakMemory, time } from './measure.ts'

export type InstructionDataRun = {
  readonly rows: number
  /** User and system time of all threads, in milliseconds. */
  readonly cpuMs: number
  readonly wallMs: number
  /** Bytes. */
  readonly peak: number
}

const mostAsked = 20_000

const [folder = '', what = '', rows = ''] = process.argv.slice(2)
const out = join(folder, 'out')
const result = what === 'teacher' ? await askTeacher() : await generate()
console.log(JSON.stringify(result))

async function generate(): Promise<InstructionDataRun> {
  const { captions, instances } = cocoPaths(folder)
  const words = ['generate', '--captions', captions, '--instances', instances, '--teacher', 'rules', '--out', out]
  return measured(Number(rows), async () => {
    if ((await runProgram(words)) !== 0) throw new Error('Cannot measure: llava generate failed')
  })
}

/** The teacher's own work, without what hands it the requests. */
async function askTeacher(): Promise<InstructionDataRun> {
  const prompts = await loadPrompts(packageFile('prompts'))
  const settings = { model: 'rules', temperature: 0.7, maxTokens: 1024, seed: 0 }
  const plan = { types: paperTypes, perPicture: 1, seed: 0, prompts }
  const requests: TeacherRequest[] = []
  for await (const task of tasksIn(out, { plan, limit: mostAsked, shard: undefined }))
    requests.push(requestFor(task, { prompts, settings }))
  const teacher = rulesTeacher({ categories, find: createObjectFinder(categories) })
  const { signal } = new AbortController()
  return measured(requests.length, async () => {
    // A request that the rules cannot answer fails.
    for (const request of requests) await teacher.answer(request, { signal }).catch(() => undefined)
  })
}

async function measured(count: number, work: () => Promise<void>): Promise<InstructionDataRun> {
  const before = process.cpuUsage()
  const wallMs = await time(work)
  const { user, system } = process.cpuUsage(before)
  return { rows: count, cpuMs: (user + system) / 1000, wallMs, peak: peakMemory() }
}
