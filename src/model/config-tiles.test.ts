import { expect, test } from 'vitest'
import { parseLlavaConfig, toHuggingFaceConfig } from './config.ts'
import { errorOf, interleave, type Json, llava15 } from './published-configs.fixture.ts'

test('reads LLaVA-NeXT as published: layer and selection left out, heights before widths', () => {
  const {
    vision_feature_layer: _,
    vision_feature_select_strategy: __,
    ...next
  } = llava15({
    top: {
      model_type: 'llava_next',
      image_grid_pinpoints: [
        [336, 672],
        [1008, 336],
      ],
    },
  })
  const config = parseLlavaConfig(next)
  expect(config).toMatchObject({ featureLayer: -2, featureSelect: 'patch', visualTokens: 576 })
  expect(config.tiles).toEqual({
    resolutions: [
      { width: 672, height: 336 },
      { width: 336, height: 1008 },
    ],
    unpadding: 'rounded',
  })
  expect(toHuggingFaceConfig(config)).toMatchObject({
    architectures: ['LlavaNextForConditionalGeneration'],
    model_type: 'llava_next',
    image_grid_pinpoints: [
      [336, 672],
      [1008, 336],
    ],
  })
  expect(parseLlavaConfig(toHuggingFaceConfig(config))).toEqual(config)
})

test('reads LLaVA-OneVision: SigLIP, how many tiles are kept, last layer and all features when left out', () => {
  const { vision_feature_layer: _, vision_feature_select_strategy: __, ...rest } = interleave as Json
  const json = { ...rest, model_type: 'llava_onevision', image_grid_pinpoints: [[384, 768]] }
  const config = parseLlavaConfig(json)
  expect(config).toMatchObject({ featureLayer: -1, featureSelect: 'full', visualTokens: 729 })
  expect(config.tiles?.mostTiles).toBe(9)
  expect(parseLlavaConfig({ ...json, vision_aspect_ratio: 'anyres_max_4' }).tiles?.mostTiles).toBe(4)
  expect(parseLlavaConfig(toHuggingFaceConfig(config))).toEqual(config)
  expect(errorOf({ ...json, vision_aspect_ratio: 'pad' }).message).toContain(
    'vision_aspect_ratio is "pad", expected "anyres_max_" and a number',
  )
})

test('refuses tiles that the vision encoder cannot see, and a class token among them', () => {
  const next = (pinpoints: unknown, top: Json = {}) =>
    errorOf(llava15({ top: { model_type: 'llava_next', image_grid_pinpoints: pinpoints, ...top } })).message
  expect(next([[300, 672]])).toContain('resolution 672x300 is not made of tiles of side 336')
  expect(next([])).toContain('image_grid_pinpoints is [], expected at least 1')
  expect(next(undefined)).toContain('image_grid_pinpoints is missing')
  expect(next([[336, 672]], { vision_feature_select_strategy: 'full' })).toContain('no place among tiles')
})
