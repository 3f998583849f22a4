import { describe, expect, test } from 'vitest'
import { mergeChanges, parseAblations, readAblations, selectVariants } from './ablation.ts'

const good = {
  base: [
    { name: 'align', recipe: 'a.yaml' },
    { name: 'tune', recipe: 'b.yaml', changes: { steps: 3 } },
  ],
  seeds: [1, 2],
  evaluate: { scenes: 5, maxTokens: 20, skills: { conversation: ['existence', 'count'], detail: ['listing'] } },
  variants: [
    { name: 'base', asks: 'The base?' },
    { name: 'short', asks: 'Shorter?', stages: { tune: { steps: 2 } } },
    { name: 'no-align', asks: 'Without?', without: ['align'] },
  ],
}
const withVariant = (variant: object) => ({ ...good, variants: [...good.variants, { asks: '?', ...variant }] })

describe('mergeChanges', () => {
  test('merges objects key by key, replaces all else, takes away what is null', () => {
    const base = { a: { b: 1, c: [1, 2], d: { e: 5 } }, f: 'x', g: 7 }
    const changes = { a: { c: [3], d: { e: null, h: 8 } }, f: { i: 9 }, g: null, j: 10 }
    expect(mergeChanges(base, changes)).toEqual({ a: { b: 1, c: [3], d: { h: 8 } }, f: { i: 9 }, j: 10 })
    expect(base).toEqual({ a: { b: 1, c: [1, 2], d: { e: 5 } }, f: 'x', g: 7 })
  })

  test('leaves null out of objects that are new', () => {
    expect(mergeChanges({}, { start: { languageModel: null, projector: 'runs/p' } })).toEqual({
      start: { projector: 'runs/p' },
    })
  })
})

describe('parseAblations', () => {
  test('fills in what is left out', () => {
    const { base, variants } = parseAblations(good, 'f')
    expect(base[0]).toEqual({ name: 'align', recipe: 'a.yaml', changes: {} })
    expect(variants[0]).toEqual({ name: 'base', asks: 'The base?', without: [], stages: {}, config: {} })
  })

  test('names every wrong field, in one sentence', () => {
    const bad = { ...good, seeds: [-1], evaluate: { ...good.evaluate, skills: { all: ['dancing'] } }, steps: 3 }
    expect(() => parseAblations(bad, 'f.yaml')).toThrow(TypeError)
    expect(() => parseAblations(bad, 'f.yaml')).toThrow(
      /ablations f\.yaml: .*seeds\.0.*evaluate\.skills\.all\.0.*steps/,
    )
  })

  test.each([
    [
      'a stage that is not there',
      { name: 'x', without: ['warm-up'] },
      'variant x names a stage warm-up, expected some',
    ],
    ['a change to such a stage', { name: 'x', stages: { 'warm-up': { steps: 1 } } }, 'variant x names a stage warm-up'],
    ['both at once', { name: 'x', without: ['tune'], stages: { tune: { steps: 1 } } }, 'both changes stage tune and'],
    ['no stages', { name: 'x', without: ['align', 'tune'] }, 'variant x leaves out every stage'],
    ['no change', { name: 'x' }, 'variant x changes nothing'],
    ['a name twice', { name: 'short', without: ['tune'] }, 'found short twice, expected variants of different names'],
  ])('refuses a variant with %s', (_, variant, message) => {
    expect(() => parseAblations(withVariant(variant), 'f')).toThrow(RangeError)
    expect(() => parseAblations(withVariant(variant), 'f')).toThrow(message)
  })

  test('refuses a first variant that is not the base', () => {
    const bad = { ...good, variants: good.variants.slice(1) }
    expect(() => parseAblations(bad, 'f')).toThrow('the first variant, short, changes something, expected the base')
  })
})

describe('selectVariants', () => {
  const ablations = parseAblations(good, 'f')

  test('keeps the order of the file', () => {
    expect(selectVariants(ablations, ['no-align', 'base']).map(({ name }) => name)).toEqual(['base', 'no-align'])
    expect(selectVariants(ablations, undefined)).toHaveLength(3)
  })

  test('refuses a name that the file does not have, with those that it has', () => {
    const unknown = () => selectVariants(ablations, ['base', 'alignment'])
    expect(unknown).toThrow(RangeError)
    expect(unknown).toThrow(
      'Cannot run variant alignment: the file does not describe it, expected some of base, short, no-',
    )
  })
})

test('a file that is not there, or is no YAML, is named', async () => {
  await expect(readAblations('none.yaml')).rejects.toThrow('Cannot read none.yaml: no such file')
  await expect(readAblations('package.json')).rejects.toThrow(/Cannot use ablations package\.json: .*base/)
})
