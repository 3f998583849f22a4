/**
 * Trains in a process of its own, and kills it where a test says:
 *
 *     node run.fixture.mjs RECIPE.json FOLDER [milliseconds after the start | writing | deleting] [how many times to let pass]
 */

import { readdirSync, readFileSync } from 'node:fs'
import { parseRecipe } from './recipe.ts'
import { train } from './run.ts'

const [recipe = '', folder = '', moment = '', pass = '0'] = process.argv.slice(2)
const die = () => process.kill(process.pid, 'SIGKILL')
let seen = new Set<string>()

const names = () => {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** Looks between any two parts of asynchronous work: checkpoints are written in many. */
function watch(pattern: RegExp): void {
  for (const name of names()) if (pattern.test(name)) seen.add(name)
  if (seen.size > Number(pass) && names().some((name) => pattern.test(name))) die()
  setImmediate(() => watch(pattern))
}

await train(parseRecipe(JSON.parse(readFileSync(recipe, 'utf8')), recipe), {
  folder,
  resume: true,
  threads: 1,
  onEvent: ({ type }) => {
    if (type !== 'start') return
    seen = new Set()
    if (moment === 'writing') watch(/^\.checkpoint-\d+\.partial/)
    else if (moment === 'deleting') watch(/^\.checkpoint-\d+\.old/)
    else if (moment !== '') setTimeout(die, Number(moment))
  },
})
process.exit(0)
