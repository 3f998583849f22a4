/** `llava clip IMAGE… LABEL…`: which of some texts goes with a picture, by a CLIP or SigLIP model. */

import type { Command } from 'commander'
import { type Classification, Clip, defaultTemplate, wordLabel } from '../clip.ts'
import { type Device, devices } from '../runtime/device.ts'
import type { CommandContext } from './context.ts'
import { kindOf, milliseconds, oneOf, threadCount } from './options.ts'
import { openPicture } from './picture-input.ts'
import { clearStatus, drawStatus, paint, printable, progressBar, type Terminal, writeLine } from './terminal.ts'

type ClipOptions = {
  model: string
  template?: string
  similarity?: boolean
  truncate?: boolean
  threads?: number
  device?: Device
  json?: boolean
}

export function addClipCommand(program: Command, context: CommandContext): void {
  program
    .command('clip')
    .usage('[options] --model MODEL IMAGE… LABEL…')
    .description('tell which labels go with a picture, with a CLIP or SigLIP model')
    .argument('[words...]', 'picture files (- reads one from standard input), then the labels')
    .requiredOption(
      '-m, --model <name|folder>',
      'the Hugging Face folder of a CLIPModel or SiglipModel, or ORG/NAME that was pulled',
    )
    .option('--template <text>', `the text made of a label, {} in its place (default: "${defaultTemplate}")`)
    .option('--similarity', 'compare with the texts as they are; no probabilities')
    .option('--truncate', 'cut texts that are too long for the model instead of refusing them')
    .option('--device <name>', `where the model runs: ${devices.join(', ')} (default: cpu)`, oneOf('--device', devices))
    .option('--threads <n>', 'processor threads', threadCount)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Words are picture files up to the first one that is not a file; the rest are labels.
CLIP shares a probability of 100 % among the labels, SigLIP judges each label by itself.

Examples:
  $ llava clip photo.jpg cat dog 'two birds' --model ./clip-vit-large-patch14
  $ llava clip a.png b.png indoors outdoors --template 'a picture taken {}' --model ./siglip-base-patch16-224
  $ llava clip photo.jpg 'a cat asleep on a red sofa' --similarity --model ./clip-vit-base-patch32
  $ llava clip *.jpg cat dog --json --model openai/clip-vit-base-patch32`,
    )
    .action((words: string[], options: ClipOptions) => clip(words, options, context))
}

type Result = { readonly image: string; readonly labels: readonly Partial<Classification>[] }

async function clip(words: readonly string[], options: ClipOptions, context: CommandContext): Promise<void> {
  const { stdout, stderr, watch } = context
  const { signal } = watch
  const { pictures, labels } = await readClipWords(words)
  if (options.similarity === true && options.template !== undefined) {
    throw new RangeError('Cannot use --template with --similarity, which compares with the texts as they are')
  }
  wordLabel('', options.template ?? defaultTemplate) // a wrong template is told before the model is opened
  const images = await Promise.all(pictures.map((path) => openPicture(path, signal)))

  const started = performance.now()
  drawStatus(stderr, `opening ${printable(options.model)} …`)
  const model = await Clip.load(options.model, { threads: options.threads, device: options.device, signal }).finally(
    () => clearStatus(stderr),
  )
  try {
    if (options.similarity !== true) expectChoice(labels, model.config.kind)
    const loaded = performance.now()
    const limits = { truncate: options.truncate, signal }
    drawStatus(stderr, `looking at ${pictures.length === 1 ? 'the picture' : `${pictures.length} pictures`} …`)
    const compared =
      options.similarity === true
        ? (await model.similarity({ images, texts: labels, ...limits })).map((row) =>
            row.map((similarity, i) => ({ label: labels[i] ?? '', similarity })),
          )
        : await model.classify({ images, labels, template: options.template, ...limits })
    clearStatus(stderr)
    const results = pictures.map((image, i) => ({ image, labels: compared[i] ?? [] }))
    if (options.json === true) {
      const timings = { load_ms: milliseconds(loaded - started), compare_ms: milliseconds(performance.now() - loaded) }
      writeLine(stdout, JSON.stringify({ pictures: results, timings, model: options.model }))
      return
    }
    for (const [index, result] of results.entries()) {
      if (index > 0) writeLine(stdout)
      if (results.length > 1) writeLine(stdout, paint(stdout, 'bold', printable(result.image)))
      for (const line of table(result, stdout)) writeLine(stdout, line)
    }
  } finally {
    clearStatus(stderr)
    await model.dispose()
  }
}

/**
 * Tells pictures from labels: the leading words that are files, and the rest.
 * @throws RangeError when either is missing or a label is empty
 */
async function readClipWords(words: readonly string[]): Promise<{ pictures: string[]; labels: string[] }> {
  const usage = 'expected llava clip IMAGE… LABEL…'
  const [first] = words
  if (first === undefined) throw new RangeError(`Cannot compare: found no picture, ${usage}`)
  let count = 0
  while (count < words.length && (words[count] === '-' || (await kindOf(words[count] ?? '')) === 'file')) count++
  // The first word is a picture whatever it is, so that a wrong path is told as such.
  const pictures = words.slice(0, Math.max(1, count))
  const labels = words.slice(pictures.length)
  if (labels.length === 0)
    throw new RangeError(
      `Cannot compare: found no label after ${words.length === 1 ? 'the picture' : 'the pictures'}, ${usage}`,
    )
  if (labels.some((label) => label.trim() === '')) throw new RangeError(`Cannot compare: a label is empty, ${usage}`)
  if (pictures.filter((picture) => picture === '-').length > 1) {
    throw new RangeError('Cannot compare: found - more than once, expected one picture from standard input')
  }
  return { pictures, labels }
}

function expectChoice(labels: readonly string[], kind: 'clip' | 'siglip'): void {
  if (kind === 'siglip' || labels.length > 1) return
  throw new RangeError(
    'Cannot classify: found one label, expected two or more for CLIP to choose from, or --similarity for how well one text fits',
  )
}

/** One line per label, the best first: bar, probability and cosine, or the cosine alone. */
function table({ labels }: Result, { columns }: Terminal): string[] {
  const value = ({ probability, similarity }: Partial<Classification>) => probability ?? similarity ?? 0
  const sorted = [...labels].sort((one, other) => value(other) - value(one))
  const names = sorted.map(({ label = '' }) => printable(label).replace(/\s+/g, ' '))
  const width = Math.min(Math.max(...names.map((name) => name.length)), Math.max(12, columns() - 44))
  return sorted.map(({ probability, similarity = 0 }, i) => {
    const name = (names[i] ?? '').length > width ? `${names[i]?.slice(0, width - 1)}…` : (names[i] ?? '')
    const cosine = `similarity ${similarity.toFixed(3).padStart(6)}`
    const bar = progressBar(probability ?? similarity, { width: 20 })
    const share = probability === undefined ? '' : `  ${`${(100 * probability).toFixed(1)} %`.padStart(7)}`
    return `${name.padEnd(width)}  ${bar}${share}  ${cosine}`
  })
}
