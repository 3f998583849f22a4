import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createStopFilter } from './stop.ts'

function filtered(pieces: readonly string[], stops: readonly string[]) {
  const filter = createStopFilter(stops)
  const passed: string[] = []
  for (const piece of pieces) {
    const { text, stopped } = filter.push(piece)
    passed.push(text)
    if (stopped) return { passed, stopped }
  }
  return { passed: [...passed, filter.flush()], stopped: false }
}

describe('stop strings', () => {
  test('end the text before them, also inside one piece', () => {
    expect(filtered(['abc###def'], ['###'])).toEqual({ passed: ['abc'], stopped: true })
  })

  test('are found across pieces, and nothing of them passes', () => {
    expect(filtered(['abc#', '#', '#d'], ['###'])).toEqual({ passed: ['abc', '', ''], stopped: true })
  })

  test('what turns out not to be one passes later', () => {
    expect(filtered(['a#', '#', 'b'], ['###'])).toEqual({ passed: ['a', '', '##b', ''], stopped: false })
    expect(filtered(['a##'], ['###'])).toEqual({ passed: ['a', '##'], stopped: false })
  })

  test('overlap with themselves and with each other', () => {
    expect(filtered(['####'], ['###']).passed.join('')).toBe('')
    expect(filtered(['xaab'], ['aab'])).toEqual({ passed: ['x'], stopped: true })
    expect(filtered(['aa', 'ab'], ['aab'])).toEqual({ passed: ['', 'a'], stopped: true })
    expect(filtered(['one END two'], ['two', 'END']).passed.join('')).toBe('one ')
  })

  test('after one nothing more passes', () => {
    const filter = createStopFilter(['x'])
    filter.push('ax')
    expect([filter.push('more'), filter.flush()]).toEqual([{ text: '', stopped: true }, ''])
  })

  test('however the text is cut, the result is that of the whole text', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'b', '#'), maxLength: 12 })
    const stop = fc.string({ unit: fc.constantFrom('a', 'b', '#'), minLength: 1, maxLength: 4 })
    const property = fc.property(
      fc.array(letters, { maxLength: 6 }),
      fc.array(stop, { maxLength: 3 }),
      (pieces, stops) => {
        const whole = pieces.join('')
        const ends = stops.map((each) => whole.indexOf(each)).filter((end) => end >= 0)
        // The stop string that is complete first wins.
        const completed = stops.flatMap((each) => (whole.includes(each) ? [whole.indexOf(each) + each.length] : []))
        const { passed, stopped } = filtered(pieces, stops)
        expect(stopped).toBe(ends.length > 0)
        if (!stopped) expect(passed.join('')).toBe(whole)
        else expect(whole.slice(0, Math.min(...completed)).startsWith(passed.join(''))).toBe(true)
        for (const each of stops) expect(passed.join('').includes(each)).toBe(false)
      },
    )
    fc.assert(property, { seed: 1, numRuns: 500 })
  })

  test('must not be empty', () => {
    expect(() => createStopFilter(['a', ''])).toThrow(/empty stop string/)
  })
})
