/** From scene graph to picture: a background for the setting, the drawings, then light and noise like a camera's. */
import { type Drawings, type Sprite, spriteOf } from './drawings.ts'
import { between, createRandom, integerBetween, nextInteger, type Random, uniform } from './random.ts'
import { type Scene, type Setting, streams } from './scene.ts'

/** RGB, row by row: [H, W, 3]. */
export type Picture = { width: number; height: number; data: Uint8Array }

type Rgb = readonly [number, number, number]
/** Upper band from top to horizon, lower band from horizon to bottom; a lone band fills the picture. */
type Backdrop = { upper: readonly [Rgb, Rgb]; lower?: readonly [Rgb, Rgb] }

const backdrops: Record<Setting, Backdrop> = {
  field: {
    upper: [
      [120, 185, 240],
      [190, 225, 250],
    ],
    lower: [
      [130, 190, 95],
      [95, 160, 70],
    ],
  },
  night: {
    upper: [
      [18, 22, 60],
      [45, 50, 100],
    ],
    lower: [
      [40, 55, 60],
      [25, 38, 42],
    ],
  },
  sea: {
    upper: [
      [175, 215, 245],
      [215, 235, 250],
    ],
    lower: [
      [50, 130, 190],
      [25, 85, 150],
    ],
  },
  road: {
    upper: [
      [190, 205, 220],
      [215, 225, 230],
    ],
    lower: [
      [125, 125, 130],
      [95, 95, 100],
    ],
  },
  room: {
    upper: [
      [235, 215, 185],
      [245, 228, 205],
    ],
    lower: [
      [175, 125, 85],
      [145, 100, 65],
    ],
  },
  snow: {
    upper: [
      [150, 175, 205],
      [190, 208, 228],
    ],
    lower: [
      [222, 232, 242],
      [205, 218, 232],
    ],
  },
  beach: {
    upper: [
      [110, 195, 220],
      [90, 185, 205],
    ],
    lower: [
      [240, 220, 165],
      [225, 200, 140],
    ],
  },
  plain: {
    upper: [
      [205, 205, 200],
      [185, 190, 190],
    ],
  },
}

const noiseTable = makeNoiseTable()

/**
 * The picture of a scene, [H, W, 3]. Equal scenes give equal pixels.
 * @throws RangeError when an object's style was not loaded
 */
export function renderScene(scene: Scene, drawings: Drawings): Picture {
  const { side } = scene
  const data = new Uint8ClampedArray(side * side * 3) // [H, W, 3]
  const random = createRandom(scene.seed, streams.picture)
  paintBackdrop(random, { data, scene })
  for (const [index, object] of scene.objects.entries()) {
    const { category, style, box, mirrored } = object
    const sprite = spriteOf(drawings, { category, style, width: box.width, height: box.height })
    // A stream of its own for each object, so that taking one object away changes no other pixel.
    const gains = objectGains(createRandom(scene.seed, streams.picture + 16 * (index + 1)))
    paintSprite({ data, side }, { sprite, x: box.x, y: box.y, mirrored, gains })
  }
  addLightAndNoise(createRandom(scene.seed, streams.noise), data)
  return { width: side, height: side, data: new Uint8Array(data.buffer) }
}

function paintBackdrop(random: Random, { data, scene }: { data: Uint8ClampedArray; scene: Scene }): void {
  const { side, setting } = scene
  const { upper, lower } = backdrops[setting]
  const horizon = lower ? Math.round(between(random, [0.4, 0.7]) * side) : side
  const tint: Rgb = [between(random, [-14, 14]), between(random, [-14, 14]), between(random, [-14, 14])]
  const slope = between(random, [-0.12, 0.12]) // brightness from left to right, in 8-bit steps per pixel at side 96
  for (let y = 0; y < side; y++) {
    const [from, to] = y < horizon || !lower ? upper : lower
    const start = y < horizon ? 0 : horizon
    const share = (y - start) / Math.max(1, (y < horizon ? horizon : side) - start)
    for (let x = 0; x < side; x++) {
      const light = (slope * (x - side / 2) * 96) / side
      const at = (y * side + x) * 3
      data[at] = from[0] + (to[0] - from[0]) * share + tint[0] + light
      data[at + 1] = from[1] + (to[1] - from[1]) * share + tint[1] + light
      data[at + 2] = from[2] + (to[2] - from[2]) * share + tint[2] + light
    }
  }
}

/** A slightly different light on each object: too little to turn a red apple orange. */
function objectGains(random: Random): Rgb {
  const brightness = between(random, [0.88, 1.06])
  const warmth = between(random, [-0.05, 0.05])
  return [brightness + warmth, brightness, brightness - warmth]
}

function paintSprite(
  { data, side }: { data: Uint8ClampedArray; side: number },
  { sprite, x, y, mirrored, gains }: { sprite: Sprite; x: number; y: number; mirrored: boolean; gains: Rgb },
): void {
  const { width, height } = sprite
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < width; column++) {
      const from = (row * width + (mirrored ? width - 1 - column : column)) * 4
      const seeThrough = 1 - (sprite.data[from + 3] as number) / 255
      if (seeThrough === 1) continue
      const at = ((y + row) * side + x + column) * 3
      data[at] = (sprite.data[from] as number) * gains[0] + (data[at] as number) * seeThrough
      data[at + 1] = (sprite.data[from + 1] as number) * gains[1] + (data[at + 1] as number) * seeThrough
      data[at + 2] = (sprite.data[from + 2] as number) * gains[2] + (data[at + 2] as number) * seeThrough
    }
  }
}

function addLightAndNoise(random: Random, data: Uint8ClampedArray): void {
  const contrast = between(random, [0.85, 1.1])
  const brightness = between(random, [-14, 14])
  const strength = between(random, [0, 5])
  let at = integerBetween(random, [0, noiseTable.length - 1])
  for (let index = 0; index < data.length; index++) {
    // Jumping now and then keeps the repeating table from showing as a pattern.
    if (index % 509 === 0) at = nextInteger(random) % noiseTable.length
    const noise = noiseTable[at] as number
    at = at + 1 === noiseTable.length ? 0 : at + 1
    data[index] = ((data[index] as number) - 128) * contrast + 128 + brightness + noise * strength
  }
}

/** Numbers of mean 0 and variance 1, nearly normal: the sum of twelve uniform numbers, centred. */
function makeNoiseTable(): Float32Array {
  const random = createRandom(0, streams.noise)
  return Float32Array.from({ length: 8192 }, () => {
    let sum = -6
    for (let term = 0; term < 12; term++) sum += uniform(random)
    return sum
  })
}
