/**
 * Reads `preprocessor_config.json` of a Hugging Face checkpoint: how its vision encoder wants pictures.
 *
 * The file comes with somebody else's download, so it is parsed once, here, and refused when it lacks what it must say.
 */

import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'
import type { Filter } from './resize.ts'
import type { Size } from './tiles.ts'

export type ResizeSize =
  | { readonly shortestEdge: number } // keeps the aspect ratio
  | Size // squashes

export type ImageProcessorConfig = {
  /** The class that wrote the file, such as CLIPImageProcessor. */
  readonly processor: string
  /** Pads to a square in the mean colour first (`do_pad` of LlavaImageProcessor). */
  readonly pad: boolean
  readonly resize: { readonly size: ResizeSize; readonly filter: Filter } | undefined
  readonly crop: Size | undefined
  /** Looks at a picture in several views, see `tiles.ts`. */
  readonly tiles: TileRule | undefined
  /** Multiplies each byte; 1/255 nearly always. */
  readonly rescaleFactor: number | undefined
  /** The colour mean of the encoder's training pictures, red, green and blue, after rescaling. */
  readonly mean: Triple | undefined
  readonly std: Triple | undefined
  /** Whether mean and std are applied; padding uses the mean either way. */
  readonly normalize: boolean
}

export type TileRule = {
  /** Sizes that a picture may be fitted into, multiples of `side`. */
  readonly resolutions: readonly Size[]
  readonly side: number
  /** What becomes of pictures that are shown together: tiles all the same, or one padded square each. */
  readonly together: 'tiles' | 'pad'
}

export type Triple = readonly [number, number, number]

/**
 * The typed form of a parsed `preprocessor_config.json`; `name` is what error messages call the file.
 *
 * Unknown keys are ignored and null counts as absent, as in transformers. Steps that the file does not mention follow
 * the processor classes: resizing, rescaling by 1/255 and normalising are on, cropping is on when there is a
 * `crop_size`, padding is off and means something for LlavaImageProcessor only. Sizes, filter, mean, std and the
 * resolutions of tiles have no default.
 *
 * @throws TypeError when a key has the wrong type or a value that a switched-on step needs is missing
 * @throws RangeError when the file belongs to another kind of processor
 */
export function readImageProcessorConfig(
  json: unknown,
  { name = 'preprocessor_config.json' }: { readonly name?: string } = {},
): ImageProcessorConfig {
  const parsed = configSchema.safeParse(json)
  if (!parsed.success) {
    throw new TypeError(`Cannot read ${name}: ${tellWrongFields(parsed.error, json)}`)
  }
  const file = parsed.data
  const need = <T>(key: keyof typeof file, value: T | null | undefined): T => {
    if (value !== null && value !== undefined) return value
    throw new TypeError(`Cannot read ${name}: ${key} is missing, expected a value`)
  }
  const processor = need('image_processor_type', file.image_processor_type ?? file.feature_extractor_type)
  const kind = knownProcessors.exec(processor)?.groups?.kind
  if (kind === undefined) {
    throw new RangeError(
      `Cannot read ${name}: found image_processor_type ${processor.slice(0, 80)}, ` +
        'expected a CLIP, Siglip, ViT, Llava, LlavaNext or LlavaOnevision image processor',
    )
  }
  const resizes = file.do_resize ?? true
  const normalizes = file.do_normalize ?? true
  const crops =
    kind !== 'LlavaOnevision' && (file.do_center_crop ?? (file.crop_size !== null && file.crop_size !== undefined))
  const tiled = kind === 'LlavaNext' || kind === 'LlavaOnevision'
  return {
    processor,
    pad: kind === 'Llava' && (file.do_pad ?? false),
    resize:
      resizes || tiled
        ? { size: toResizeSize(need('size', file.size)), filter: filters[need('resample', file.resample)] }
        : undefined,
    tiles: tiled ? readTileRule({ kind, name, need, file }) : undefined,
    crop: crops ? toCropSize(need('crop_size', file.crop_size)) : undefined,
    rescaleFactor: (file.do_rescale ?? true) ? (file.rescale_factor ?? 1 / 255) : undefined,
    mean: normalizes ? need('image_mean', file.image_mean) : (file.image_mean ?? undefined),
    std: normalizes ? need('image_std', file.image_std) : (file.image_std ?? undefined),
    normalize: normalizes,
  }
}

/**
 * The tiles of LlavaNext are as large as its crop, those of LlavaOnevision as its size; only the latter shows several
 * pictures as one square each. Their `do_pad` speaks of batches, not of pictures.
 */
function readTileRule({
  kind,
  name,
  need,
  file,
}: {
  kind: 'LlavaNext' | 'LlavaOnevision'
  name: string
  need: <T>(key: keyof FileConfig, value: T | null | undefined) => T
  file: FileConfig
}): TileRule {
  const side =
    kind === 'LlavaNext'
      ? toCropSize(need('crop_size', file.crop_size)).height
      : shortestSide(toResizeSize(need('size', file.size)))
  const pinpoints = need('image_grid_pinpoints', file.image_grid_pinpoints)
  const uneven = pinpoints.flat().find((length) => length % side !== 0)
  if (uneven !== undefined) {
    throw new RangeError(
      `Cannot read ${name}: image_grid_pinpoints holds the side ${uneven}, expected multiples of the tile side ${side}`,
    )
  }
  return {
    resolutions: pinpoints.map(([height, width]) => ({ width, height })),
    side,
    together: kind === 'LlavaNext' ? 'tiles' : 'pad',
  }
}

/** Qwen's processors choose sizes per picture: read as one of these, they would be wrong. */
const knownProcessors =
  /^(?<kind>CLIP|Siglip|ViT|Llava|LlavaNext|LlavaOnevision)(ImageProcessor(Fast|Pil)?|FeatureExtractor)$/

/** Pillow's filter codes. Box (4) and Hamming (5) exist there too; no vision encoder asks for them. */
const filters = ['nearest', 'lanczos', 'bilinear', 'bicubic'] as const satisfies readonly Filter[]

/** Far above any vision encoder (336, 384, 448, ...), low enough that a hostile file cannot ask for all memory. */
const side = z.int().min(1).max(8192)
const rectangle = z.looseObject({ height: side, width: side })
const triple = z.tuple([z.number(), z.number(), z.number()])

/** Height and width; no list is longer than the 36 of LLaVA-OneVision, but a longer one does no harm. */
const pinpoints = z
  .array(z.tuple([side, side]))
  .min(1)
  .max(1024)

const configSchema = z.looseObject({
  image_processor_type: z.string().nullish(),
  feature_extractor_type: z.string().nullish(), // what the key was called before 2023
  do_pad: z.boolean().nullish(),
  do_resize: z.boolean().nullish(),
  size: z
    .union([side, z.looseObject({ shortest_edge: side }), rectangle], {
      error: 'a side, {shortest_edge} or {height, width}, each 1 to 8192',
    })
    .nullish(),
  resample: z
    .union([z.literal(0), z.literal(1), z.literal(2), z.literal(3)], {
      error: '0 (nearest), 1 (lanczos), 2 (bilinear) or 3 (bicubic)',
    })
    .nullish(),
  do_center_crop: z.boolean().nullish(),
  crop_size: z.union([side, rectangle], { error: 'a side or {height, width}, each 1 to 8192' }).nullish(),
  image_grid_pinpoints: pinpoints.nullish(),
  do_rescale: z.boolean().nullish(),
  rescale_factor: z.number().positive().nullish(),
  do_normalize: z.boolean().nullish(),
  image_mean: triple.nullish(),
  image_std: triple.refine((values) => values.every((value) => value > 0), { error: '3 numbers above 0' }).nullish(),
})

type FileConfig = z.infer<typeof configSchema>

/** A bare number means the short side, as in the files written before sizes had names. */
function toResizeSize(size: NonNullable<FileConfig['size']>): ResizeSize {
  if (typeof size === 'number') return { shortestEdge: size }
  if ('shortest_edge' in size && typeof size.shortest_edge === 'number') return { shortestEdge: size.shortest_edge }
  const { width, height } = rectangle.parse(size)
  return { width, height }
}

function shortestSide(size: ResizeSize): number {
  return 'shortestEdge' in size ? size.shortestEdge : Math.min(size.width, size.height)
}

function toCropSize(size: NonNullable<FileConfig['crop_size']>): Size {
  return typeof size === 'number' ? { width: size, height: size } : { width: size.width, height: size.height }
}
