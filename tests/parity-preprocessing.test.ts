/** Pictures as the image processors of Hugging Face transformers prepare them: references made by fixtures/parity/make-references.py. */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { preprocess, readImageProcessorConfig } from '../src/image/preprocess.ts'
import { noise } from './references.ts'

describe('preprocess equals the image processors of transformers to the bit', () => {
  type Case = {
    picture: { width: number; height: number; seed: number }
    processor: string
    shape: number[]
    sha256: string
    start: number[]
  }
  const { processors, cases }: { processors: Record<string, unknown>; cases: Case[] } = JSON.parse(
    readFileSync(new URL('../fixtures/parity/preprocessing.json', import.meta.url), 'utf8'),
  )

  test.each(cases)('$processor, $picture.width x $picture.height', ({ picture, processor, shape, sha256, start }) => {
    const { data, side } = preprocess(noise(picture), readImageProcessorConfig(processors[processor]))
    expect([3, side, side]).toEqual(shape)
    expect([...data.subarray(0, 4)]).toEqual(start)
    expect(createHash('sha256').update(data).digest('hex')).toBe(sha256)
  })
})
