/** The input of `llava generate`: what `--captions` was given, and its pictures put into words. */

import { join } from 'node:path'
import { hashCaptionFolder } from '../instruction-data/caption-folder.ts'
import { findCaptions } from '../instruction-data/captions-input.ts'
import type { CommandContext } from './context.ts'
import type { GenerateOptions } from './generate-options.ts'
import { hashFile, type Input, type PictureSummary, preparePictures, runFiles } from './generate-run.ts'
import { clearStatus, drawStatus, formatCount, printable, quoted, writeLine } from './terminal.ts'

/** The input, and in a clause what it was found to be. */
export type FoundInput = Input & { readonly said: string }

/** @throws Error in one sentence when captions cannot be read from there, or boxes are given twice */
export async function findInput({
  captions,
  instances,
  images,
}: Pick<GenerateOptions, 'captions' | 'instances' | 'images'>): Promise<FoundInput> {
  const { form, said } = await findCaptions(captions)
  if (instances !== undefined && form !== 'coco')
    throw new Error(`Cannot use --instances: ${captions} is ${said}, which has its own boxes; expected COCO captions`)
  return { captions, form, said, instances, images: images ?? (form === 'folder' ? captions : undefined) }
}

/** Hashes of what pictures are put into words from, as settings of a run. */
export async function inputSettings({ captions, form, instances, images }: Input) {
  const digest = async (path: string) => (await hashFile(path)).slice(0, 16)
  return {
    captions: form === 'folder' ? (await hashCaptionFolder(captions)).slice(0, 16) : await digest(captions),
    instances: instances === undefined ? 'none' : await digest(instances),
    images: images === undefined ? 'none' : 'checked',
  }
}

/**
 * Says what an input is that had to be found out, shows how the reading goes, and what was left out.
 * @param options.kept whether the folder stays after the command
 */
export async function picturesOf(
  { said, ...input }: FoundInput,
  { folder, kept, context: { stderr, watch } }: { folder: string; kept: boolean; context: CommandContext },
): Promise<PictureSummary> {
  const pictures = await preparePictures(folder, {
    input,
    signal: watch.signal,
    onBegin: () => {
      const plain = input.form === 'coco' || input.form === 'rows' // what else .json and .jsonl hold is said
      if (!plain) writeLine(stderr, `Reading ${quoted(input.captions)}: ${printable(said)}`)
    },
    onRecord: (count) => {
      if (count % 5000 === 0) drawStatus(stderr, `Reading captions and boxes: ${formatCount(count)} entries`)
    },
    onPicture: (count) => {
      if (count % 500 === 0) drawStatus(stderr, `Putting captions and boxes together: ${formatCount(count)} pictures`)
    },
  }).finally(() => clearStatus(stderr))
  const { skipped, firstProblem } = pictures
  if (skipped > 0) {
    const rest = skipped === 1 ? 'One picture is' : `${skipped} pictures are`
    const where = kept ? ` (${quoted(join(folder, runFiles.skipped))})` : ''
    writeLine(stderr, `${rest} left out${where}, the first: ${printable(firstProblem ?? '')}`)
  }
  return pictures
}
