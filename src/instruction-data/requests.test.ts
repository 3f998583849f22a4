import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { loadPrompts, responseTypes } from './prompts.ts'
import { requestFor, shareOf } from './requests.ts'

test('the key is a hash over all that the answer depends on, as made the long way', async () => {
  const prompts = await loadPrompts('prompts')
  const settings = { model: 'm"1', temperature: 0.7, maxTokens: 1024, seed: 3 }
  for (const type of responseTypes) {
    for (const round of [0, 1, 0]) {
      for (const caption of ['A cat.', 'Ein "Hund" – ドッグ.']) {
        const picture = { id: '1', image: '1.jpg', captions: [caption], boxes: [] }
        const { key, messages } = requestFor({ picture, type, promptVersion: '' }, { prompts, settings, round })
        const all = JSON.stringify([
          settings.model,
          settings.temperature,
          settings.maxTokens,
          settings.seed,
          round,
          messages,
        ])
        expect(key).toBe(createHash('sha256').update(all).digest('hex').slice(0, 32))
        expect(messages.at(-1)).toEqual({ role: 'user', content: caption })
        expect(messages.length).toBe(2 + 2 * prompts[type].examples.length)
      }
    }
  }
})

test('a share is the first 48 bits of a hash', () => {
  for (const text of ['', 'shard 7', 'é']) {
    expect(shareOf(text)).toBe(createHash('sha256').update(text).digest().readUIntBE(0, 6) / 2 ** 48)
  }
})
