/** The families that Hugging Face's `config.json` tells apart, and what those say that look at a picture in tiles. */

import { show } from '../wrong-fields.ts'
import { parseSection, reading, tilesSchema } from './config-schema.ts'

/** How a picture that is looked at in several views becomes one sequence of visual tokens (see arrangement.ts). */
export type TilesConfig = {
  /** Sizes in pixels that a picture may be fitted into, multiples of the image side. */
  resolutions: readonly { width: number; height: number }[]
  /** Most tiles' worth of visual tokens: where there are clearly more, they are shrunk (LLaVA-OneVision). */
  mostTiles?: number
  /** How a picture's share of a resolution is made whole: the published code rounds down, transformers to 7 digits before that. */
  unpadding: 'rounded' | 'truncated'
}

const families = ['llava', 'llava_next', 'llava_onevision'] as const
export type Family = (typeof families)[number]

export const architectures = {
  llava: 'LlavaForConditionalGeneration',
  llava_next: 'LlavaNextForConditionalGeneration',
  llava_onevision: 'LlavaOnevisionForConditionalGeneration',
} as const satisfies Record<Family, string>

/** Keys that published files of a family omit, with the defaults of its config class. */
export const omittedTopKeys: Record<Family, Record<string, unknown>> = {
  llava: {},
  llava_next: { vision_feature_layer: -2, vision_feature_select_strategy: 'default' },
  llava_onevision: { vision_feature_layer: -1, vision_feature_select_strategy: 'full' },
}

/** The `model_type` of a config. Errors: `Error` for any other. */
export function readFamily({ model_type }: Record<string, unknown>): Family {
  const family = families.find((name) => name === model_type)
  if (family !== undefined) return family
  throw new Error(`${reading}: model_type is ${show(model_type)}, expected ${families.map(show).join(' or ')}`)
}

export function familyOf(tiles: TilesConfig | undefined): Family {
  if (tiles === undefined) return 'llava'
  return tiles.mostTiles === undefined ? 'llava_next' : 'llava_onevision'
}

/** Heights stand before widths in the file. Errors as `parseLlavaConfig`. */
export function readTiles(family: Exclude<Family, 'llava'>, root: Record<string, unknown>): TilesConfig {
  const { image_grid_pinpoints, vision_aspect_ratio = 'anyres_max_9' } = parseSection(tilesSchema, root, '')
  return {
    resolutions: image_grid_pinpoints.map(([height, width]) => ({ width, height })),
    ...(family === 'llava_onevision' ? { mostTiles: Number(/\d+$/.exec(vision_aspect_ratio)?.[0]) } : {}),
    unpadding: 'rounded',
  }
}

/** The keys that `readTiles` reads; none without tiles. */
export function writeTiles(tiles: TilesConfig | undefined): Record<string, unknown> {
  if (tiles === undefined) return {}
  return {
    image_grid_pinpoints: tiles.resolutions.map(({ width, height }) => [height, width]),
    ...(tiles.mostTiles === undefined ? {} : { vision_aspect_ratio: `anyres_max_${tiles.mostTiles}` }),
  }
}

/** What must hold for tiles of a vision encoder's `side`, with the message for when it does not. */
export function tileRules(
  tiles: TilesConfig | undefined,
  { side, tokens, patches }: { side: number; tokens: number; patches: number },
): [boolean, string][] {
  if (tiles === undefined) return []
  return [
    // A tile's tokens are laid out as a square beside those of other tiles.
    [
      tokens === patches,
      'feature selection "full" keeps the class token, which has no place among tiles, expected "default"',
    ],
    ...tiles.resolutions.map(({ width, height }): [boolean, string] => [
      width % side === 0 && height % side === 0,
      `resolution ${width}x${height} is not made of tiles of side ${side}`,
    ]),
  ]
}
