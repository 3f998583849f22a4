import { describe, expect, test } from 'vitest'
import type { TrainingEvent } from '../training/run.ts'
import { openTerminal } from './terminal.ts'
import { trainingProgress } from './training-progress.ts'

const recipe = { name: 'tiny', stage: 'feature-alignment', steps: 40 } as const

function show(events: readonly TrainingEvent[], { isTTY }: { isTTY: boolean }): string {
  let text = ''
  let time = 0
  const terminal = openTerminal({ write: (part) => (text += part), isTTY, columns: 100 }, { NO_COLOR: '1' })
  const progress = trainingProgress(recipe, { terminal, folder: 'runs/tiny', now: () => time })
  for (const event of events) {
    progress.show(event)
    time += 10_000
  }
  progress.end()
  return text
}

const start = { type: 'start', step: 0, steps: 40, trained: { projector: 1234 }, frozen: 5_000_000 } as const
const step = {
  type: 'step',
  step: 10,
  loss: 1.5,
  gradientNorm: 1,
  schedule: 1,
  picturesPerSecond: 123.4,
  tokensPerSecond: 5000,
} as const
const validation = { type: 'validation', step: 10, loss: 1.25, accuracy: { count: 0.5, existence: 0.875 } } as const
const skipped = { type: 'skipped', sample: 'number 3', reason: 'Cannot decode it' } as const
const end = { type: 'end', step: 40, seconds: 65, skipped: 0 } as const

describe('elsewhere than on a terminal', () => {
  test('every event is a plain line', () => {
    const lines = show([start, step, validation, { type: 'checkpoint', step: 10, path: 'runs/tiny/c' }, end], {
      isTTY: false,
    })
    expect(lines.split('\n')).toEqual([
      'Training tiny (stage feature-alignment), 40 steps, in runs/tiny',
      '  learning: projector 1.2 k weights · frozen: 5.0 M',
      'step 10/40 · loss 1.5000 · 123 pictures/s · 30 s left',
      'step 10: validation loss 1.2500 · count 50.0 % · existence 87.5 %',
      'step 10: wrote runs/tiny/c',
      '40 steps done in 1 min 05 s',
      '',
    ])
  })

  test('time left counts from where the run was resumed', () => {
    const text = show([{ ...start, step: 5 }, step], { isTTY: false })
    expect(text).toContain('going on after step 5')
    expect(text).toContain('1 min 00 s left') // 5 steps took 10 s, 30 are left
  })

  test('many skipped samples are told once each only at first', () => {
    const others = Array.from({ length: 12 }, (_, index) => ({ ...skipped, sample: `number ${index + 10}` }))
    const text = show([start, skipped, skipped, ...others, { ...end, skipped: 14 }], { isTTY: false })
    expect(text.match(/Skipped sample number \d+: Cannot decode it/g)).toHaveLength(3)
    const last = text.slice(text.indexOf('40 steps done')).split('\n')
    expect(last[0]).toBe('40 steps done in 1 min 05 s, 14 samples skipped (log.jsonl has all)')
    expect(last[1]).toBe('  skipped number 3 (2 times): Cannot decode it')
    expect(last[2]).toBe('  skipped number 10: Cannot decode it')
    expect(last.slice(11)).toEqual(['  and 3 more', ''])
  })

  test('what the model says by itself is told, by skill or by example, and so are notices', () => {
    const answers = { type: 'answers', step: 10, answers: [{ text: 'A cat.' }], accuracy: {} } as const
    const notice = { type: 'notice', text: 'Passed over a checkpoint' } as const
    const text = show([start, answers, { ...answers, accuracy: { count: 0.5 } }, notice], { isTTY: false })
    expect(text.split('\n').slice(2)).toEqual([
      'step 10: answered 1 questions by itself · for example "A cat."',
      'step 10: answered 1 questions by itself · count 50.0 %',
      'Passed over a checkpoint',
      '',
    ])
  })
})

describe('on a terminal', () => {
  test('the bar is redrawn below the lines and gone at the end', () => {
    const text = show([start, step, validation, end], { isTTY: true })
    expect(text).toContain('████████░░░░░░░░░░░░░░░░░░░░░░ 10/40 · loss 1.5000')
    const afterwards = text.slice(text.indexOf('validation loss'))
    expect(afterwards).toContain('\r\u001b[2K████') // drawn anew
    expect(text.endsWith('40 steps done in 1 min 05 s\n\r\u001b[2K')).toBe(true)
  })

  test('an interrupted run is not called done', () => {
    const text = show([start, step, { ...end, step: 10 }], { isTTY: true })
    expect(text).not.toContain('done')
    expect(text.endsWith('\r\u001b[2K')).toBe(true)
  })
})
