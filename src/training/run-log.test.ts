import { describe, expect, test } from 'vitest'
import { parseRunLog } from './run-log.ts'

const first = '{"type":"step","step":10,"loss":2.5,"gradientNorm":3,"schedule":0.5}\n'
const check = '{"type":"validation","step":10,"loss":2.4,"accuracy":{"count":0.25}}\n'
const skip = '{"type":"skipped","sample":"a.jpg","reason":"no such file"}\n'

describe('parseRunLog', () => {
  test('sorts events by type and leaves out fields it does not know', () => {
    const older = first.replace('}', ',"picturesPerSecond":20}')
    expect(parseRunLog(older + check + skip, 'log')).toEqual({
      steps: [{ step: 10, loss: 2.5, gradientNorm: 3, schedule: 0.5 }],
      validations: [{ step: 10, loss: 2.4, accuracy: { count: 0.25 } }],
      questions: [],
      answers: [],
      skipped: [{ sample: 'a.jpg', reason: 'no such file' }],
    })
  })

  test('reads what was asked and answered, and no picture from outside of the run', () => {
    const questions = [{ sample: 's', question: 'q', reference: 'r', skill: 'count', picture: 'samples/00.png' }]
    const answers = { step: 0, answers: [{ text: 'a', right: true }], accuracy: { count: 1 } }
    const text = `${JSON.stringify({ type: 'questions', questions })}\n${JSON.stringify({ type: 'answers', ...answers })}\n`
    expect(parseRunLog(text, 'log')).toMatchObject({ questions, answers: [answers] })
    expect(() => parseRunLog(text.replace('samples/', '../../etc/'), 'log')).toThrow(
      'Cannot read line 1 of log: questions.0.picture is "../../etc/00.png", expected a file of the run',
    )
  })

  test('reads an empty log', () => {
    expect(parseRunLog('', 'log')).toEqual({ steps: [], validations: [], questions: [], answers: [], skipped: [] })
  })

  test('ignores a last line cut off anywhere, and takes it when only its newline is missing', () => {
    for (let length = 1; length < check.length - 1; length++) {
      const { steps, validations } = parseRunLog(first + check.slice(0, length), 'log')
      expect([steps.length, validations.length]).toEqual([1, 0])
    }
    expect(parseRunLog(first + check.trimEnd(), 'log').validations).toHaveLength(1)
  })

  test('names the line that is broken elsewhere, also when it is the last with its newline', () => {
    expect(() => parseRunLog(`${first}{"type":"st\n${check}`, 'run/log.jsonl')).toThrow(
      new SyntaxError('Cannot read line 2 of run/log.jsonl: found broken JSON, expected one event'),
    )
    expect(() => parseRunLog(`${first}${check}{"type"\n`, 'log')).toThrow('line 3 of log')
    expect(() => parseRunLog(`${first}\n${check}`, 'log')).toThrow('line 2 of log: found an empty line')
  })

  test('names the line and the field of an event with wrong values', () => {
    expect(() => parseRunLog(first + first.replace('2.5', '"low"'), 'log')).toThrow(
      /^Cannot read line 2 of log: loss is "low", /,
    )
    expect(() => parseRunLog('[1]\n', 'log')).toThrow(TypeError)
  })

  test('reads a loss that was not finite', () => {
    expect(parseRunLog(first.replace('2.5', 'null'), 'log').steps[0]?.loss).toBeNaN()
  })
})
