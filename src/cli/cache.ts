/** `llava cache`: converted models and visual tokens of pictures that are kept for the next time; `llava cache clear` deletes them. */

import type { Command } from 'commander'
import { type CachedModel, cacheFolder, clearCache, listCache } from '../generation/model-cache.ts'
import { clearPictureCache, countPictureCache, pictureFolder } from '../generation/picture-cache.ts'
import { gigabytes } from '../generation/precision.ts'
import type { CommandContext } from './context.ts'
import { paint, printable, quoted, writeLine } from './terminal.ts'

export function addCacheCommand(program: Command, { stdout }: CommandContext): void {
  const command = program
    .command('cache')
    .description('list or clear the converted models and the pictures that are kept for the next time')
    .helpCommand(false)
    .addHelpText(
      'after',
      `
Examples:
  $ llava cache
  $ llava cache list --json
  $ llava cache clear

The folder is named by LLAVA_CACHE; without it, it lies where this system keeps such things. Of pictures it holds what a model's encoder made of
them, at most 2 GB; what was used longest ago is deleted.`,
    )
  command
    .command('list', { isDefault: true })
    .description('list them, the latest used first')
    .option('--json', 'print one JSON object')
    .action(async ({ json }: { json?: boolean }) => {
      const folder = cacheFolder()
      const models = await listCache(folder)
      const pictures = await countPictureCache(pictureFolder())
      if (json) {
        writeLine(stdout, JSON.stringify({ folder, models, pictures: { folder: pictureFolder(), ...pictures } }))
      } else {
        for (const [index, line] of cacheTable(models, folder).entries()) {
          writeLine(stdout, index === 0 && models.length > 0 ? paint(stdout, 'bold', line) : line)
        }
        if (pictures.count > 0) writeLine(stdout, `${told(pictures)}, in ${quoted(pictureFolder())}`)
      }
    })
  command
    .command('clear')
    .description('delete them all; models in use keep running')
    .action(async () => {
      const folder = cacheFolder()
      const { models, bytes } = await clearCache(folder)
      writeLine(stdout, `Deleted ${counted(models)}, ${gigabytes(bytes)}, from ${quoted(folder)}`)
      const pictures = await clearPictureCache(pictureFolder())
      if (pictures.count > 0) writeLine(stdout, `Deleted ${told(pictures)}, from ${quoted(pictureFolder())}`)
    })
}

/** Aligned lines: precision, size, last use and origin of each model, and a sum. */
function cacheTable(models: readonly CachedModel[], folder: string): string[] {
  if (models.length === 0) return [`No converted models in ${quoted(folder)}`]
  const rows = [
    ['precision', 'size', 'last used', 'model'],
    ...models.map(({ precision, bytes, lastUsed, model }) => [
      precision,
      gigabytes(bytes),
      lastUsed.toISOString().slice(0, 16).replace('T', ' '),
      printable(model),
    ]),
  ]
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 3 ? cell : cell.padEnd(width(column)))).join('  '),
  )
  const bytes = models.reduce((sum, model) => sum + model.bytes, 0)
  return [...lines, `${counted(models.length)}, ${gigabytes(bytes)}, in ${quoted(folder)}`]
}

function told({ count, bytes }: { count: number; bytes: number }): string {
  return `visual tokens of ${count} picture${count === 1 ? '' : 's'}, ${gigabytes(bytes)}`
}

function counted(models: number): string {
  return `${models} converted model${models === 1 ? '' : 's'}`
}
