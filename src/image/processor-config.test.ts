import { describe, expect, test } from 'vitest'
import { readImageProcessorConfig } from './processor-config.ts'

const normalization = { image_mean: [0.1, 0.2, 0.3], image_std: [0.4, 0.5, 0.6] }
const complete = {
  image_processor_type: 'CLIPImageProcessor',
  size: { shortest_edge: 336 },
  resample: 3,
  crop_size: { height: 336, width: 336 },
  ...normalization,
}

describe('readImageProcessorConfig', () => {
  test('reads the file of llava-1.5 and ignores keys it does not know', () => {
    const config = readImageProcessorConfig({ ...complete, processor_class: 'LlavaProcessor', device: null })
    expect(config).toEqual({
      processor: 'CLIPImageProcessor',
      pad: false,
      resize: { size: { shortestEdge: 336 }, filter: 'bicubic' },
      crop: { width: 336, height: 336 },
      rescaleFactor: 1 / 255,
      mean: [0.1, 0.2, 0.3],
      std: [0.4, 0.5, 0.6],
      normalize: true,
    })
  })

  test('reads the file of the original CLIP: old type key, sizes as bare numbers', () => {
    const config = readImageProcessorConfig({
      feature_extractor_type: 'CLIPFeatureExtractor',
      size: 224,
      crop_size: 224,
      resample: 3,
      ...normalization,
    })
    expect(config.resize?.size).toEqual({ shortestEdge: 224 })
    expect(config.crop).toEqual({ width: 224, height: 224 })
  })

  test('reads the file of SigLIP: squashed to a rectangle, not cropped', () => {
    const config = readImageProcessorConfig({
      image_processor_type: 'SiglipImageProcessor',
      size: { height: 384, width: 200 },
      resample: 2,
      ...normalization,
    })
    expect(config.resize).toEqual({ size: { width: 200, height: 384 }, filter: 'bilinear' })
    expect(config.crop).toBeUndefined()
  })

  test.each([
    [0, 'nearest'],
    [1, 'lanczos'],
    [2, 'bilinear'],
    [3, 'bicubic'],
  ])('filter code %d is %s', (code, name) => {
    expect(readImageProcessorConfig({ ...complete, resample: code }).resize?.filter).toBe(name)
  })

  test.each(['image_processor_type', 'size', 'resample', 'image_mean', 'image_std'])('names the missing %s', (key) => {
    const file = { ...complete, [key]: undefined }
    expect(() => readImageProcessorConfig(file, { name: 'a/p.json' })).toThrow(
      new TypeError(`Cannot read a/p.json: ${key} is missing, expected a value`),
    )
    expect(() => readImageProcessorConfig({ ...complete, [key]: null })).toThrow(`${key} is missing`)
  })

  test('names the missing crop_size when cropping is switched on', () => {
    const file = { ...complete, crop_size: undefined, do_center_crop: true }
    expect(() => readImageProcessorConfig(file)).toThrow('crop_size is missing')
  })

  test('asks for nothing that a switched-off step would need', () => {
    const config = readImageProcessorConfig({
      image_processor_type: 'CLIPImageProcessor',
      do_resize: false,
      do_center_crop: false,
      do_normalize: false,
      do_rescale: false,
    })
    expect(config).toMatchObject({ resize: undefined, crop: undefined, rescaleFactor: undefined, normalize: false })
  })

  test('takes do_pad from the Llava processor only, where it means a square', () => {
    expect(readImageProcessorConfig({ ...complete, do_pad: true }).pad).toBe(false)
    const llava = { ...complete, image_processor_type: 'LlavaImageProcessorFast', do_pad: true }
    expect(readImageProcessorConfig(llava).pad).toBe(true)
  })

  test.each([
    ['size', { shortest_edge: 1e9 }],
    ['size', { shortest_edge: 0 }],
    ['size', { longest_edge: 336 }],
    ['size', 'big'],
    ['crop_size', { height: 336 }],
    ['resample', 5],
    ['resample', 'bicubic'],
    ['image_mean', [0.5, 0.5]],
    ['image_std', [0.5, 0, 0.5]],
    ['image_std', [Number.NaN, 1, 1]],
    ['rescale_factor', -1],
    ['do_resize', 'yes'],
  ])('refuses %s = %j, naming the key', (key, value) => {
    expect(() => readImageProcessorConfig({ ...complete, [key]: value })).toThrow(
      new RegExp(`^Cannot read preprocessor_config.json: ${key}.* is .*, expected `),
    )
  })

  test('reads the tiles of LLaVA-NeXT, heights first, as large as its crop', () => {
    const next = { ...complete, image_processor_type: 'LlavaNextImageProcessor', do_pad: true }
    const config = readImageProcessorConfig({
      ...next,
      image_grid_pinpoints: [
        [336, 672],
        [1008, 336],
      ],
    })
    expect(config.pad).toBe(false)
    expect(config.tiles).toEqual({
      resolutions: [
        { width: 672, height: 336 },
        { width: 336, height: 1008 },
      ],
      side: 336,
      together: 'tiles',
    })
    expect(() => readImageProcessorConfig(next)).toThrow('image_grid_pinpoints is missing')
    expect(() => readImageProcessorConfig({ ...next, image_grid_pinpoints: [[336, 700]] })).toThrow(
      'image_grid_pinpoints holds the side 700, expected multiples of the tile side 336',
    )
  })

  test('reads those of LLaVA-OneVision, as large as its size, where pictures together become one square each', () => {
    const config = readImageProcessorConfig({
      image_processor_type: 'LlavaOnevisionImageProcessor',
      size: { height: 384, width: 384 },
      resample: 3,
      do_pad: true,
      crop_size: { height: 224, width: 224 }, // its class does not crop
      image_grid_pinpoints: [[384, 768]],
      ...normalization,
    })
    expect(config.tiles).toEqual({ resolutions: [{ width: 768, height: 384 }], side: 384, together: 'pad' })
    expect(config.crop).toBeUndefined()
  })

  test.each(['Qwen2VLImageProcessor', 'LlavaNextVideoProcessor', ''])('refuses another processor: %j', (type) => {
    expect(() => readImageProcessorConfig({ ...complete, image_processor_type: type })).toThrow(RangeError)
  })

  test.each([null, [], 'text', 3])('refuses %j instead of a JSON object', (json) => {
    expect(() => readImageProcessorConfig(json)).toThrow(TypeError)
  })
})
