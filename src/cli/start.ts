/** `llava` without arguments: a first look. The built-in model answers questions about a bundled picture; then what to try next. */

import type { Command } from 'commander'
import { decodeImage } from '../image/decode.ts'
import { type Device, devices } from '../runtime/device.ts'
import type { CommandContext } from './context.ts'
import { withModel } from './model-options.ts'
import { kindOf, oneOf } from './options.ts'
import { packageFile } from './package-files.ts'
import { drawPicture } from './picture.ts'
import { formatSeconds, paint, printable, quoted, writeLine } from './terminal.ts'

const picture = 'fixtures/pictures/picturebook.png'
const anotherPicture = 'fixtures/pictures/picturebook-2.png'
const questions = ['What is in the picture?', 'How many ducks are there?', 'Is there a dog in the picture?']
const pictureColumns = 32

export function addStartCommand(program: Command, context: CommandContext): void {
  program
    .command('start')
    .description('a first look: the built-in model answers questions about a bundled picture')
    .option('--device <name>', `where the model runs: ${devices.join(', ')} (default: cpu)`, oneOf('--device', devices))
    .action((options: { device?: Device }) => start(options, context))
}

async function start(options: { device?: Device }, context: CommandContext): Promise<void> {
  const { stdout, watch } = context
  const { signal } = watch
  const image = packageFile(picture)
  if ((await kindOf(image)) !== 'file') {
    throw new Error(
      `Cannot show the first picture: ${image} is missing, expected it with the package; install it again`,
    )
  }
  const pixels = await decodeImage(image, { signal })
  writeLine(
    stdout,
    `${paint(stdout, 'bold', 'llava')} answers questions about pictures. This one is ${paint(stdout, 'cyan', image)}`,
  )
  writeLine(stdout)
  if (stdout.trueColour && stdout.columns() >= pictureColumns + 4) {
    for (const line of drawPicture(pixels, { columns: pictureColumns })) writeLine(stdout, `  ${line}`)
    writeLine(stdout)
  }
  await withModel(options, context, async (llava, { name, loadMs }) => {
    for (const question of questions) {
      if (signal.aborted) return
      const started = performance.now()
      writeLine(stdout, `${paint(stdout, 'dim', 'You:')}   ${question}`)
      stdout.write(paint(stdout, 'dim', 'Llava: '))
      for await (const text of llava.answer({ image: pixels, question, signal })) stdout.write(printable(text))
      writeLine(stdout, paint(stdout, 'dim', `  (${formatSeconds((performance.now() - started) / 1000)})`))
    }
    if (signal.aborted) return
    writeLine(stdout)
    writeLine(
      stdout,
      paint(
        stdout,
        'dim',
        `The model ${name} was opened in ${formatSeconds(loadMs / 1000)}; it runs on this computer alone.`,
      ),
    )
    writeLine(stdout, paint(stdout, 'dim', 'It has learned picturebook scenes like this one, not photographs.'))
  })
  if (signal.aborted) return
  writeLine(stdout)
  writeLine(stdout, 'Try next:')
  for (const command of nextSteps()) writeLine(stdout, `  ${paint(stdout, 'cyan', command)}`)
}

function nextSteps(): string[] {
  return [
    `npx llava ask ${quoted(packageFile(anotherPicture))} 'What is in the picture?'`,
    `npx llava chat ${quoted(packageFile(picture))}`,
    `npx llava train ${quoted(packageFile('recipes/picturebook/1-encoder.yaml'))}`,
    'npx llava --help',
  ]
}
