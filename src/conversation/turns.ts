/** Turns of a conversation about pictures, and the LLaVA JSON rows they are read from and written to. */

export type Role = 'system' | 'user' | 'assistant'

/** A part of a turn; a picture is only ever this part, never a word inside a text. */
export type Part = { readonly type: 'text'; readonly text: string } | { readonly type: 'image' }

export type Turn = { readonly role: Role; readonly content: readonly Part[] }

/** One entry of `conversations` in LLaVA JSON; in the value of a human the literal `<image>` marks a picture. */
export type LlavaMessage = { readonly from: string; readonly value: string }

/** The mark of a picture in LLaVA JSON. Nowhere else in this project does text turn into a picture. */
const PICTURE_MARK = '<image>'

/** A question about `images` pictures (default none), which come before the text. */
export function userTurn(text: string, { images = 0 }: { images?: number } = {}): Turn {
  if (!Number.isInteger(images) || images < 0) {
    throw new RangeError(`Cannot make a user turn: found ${images} images, expected a whole number from 0`)
  }
  const pictures = Array.from({ length: images }, (): Part => ({ type: 'image' }))
  return { role: 'user', content: [...pictures, { type: 'text', text }] }
}

export function assistantTurn(text: string): Turn {
  return { role: 'assistant', content: [{ type: 'text', text }] }
}

export function systemTurn(text: string): Turn {
  return { role: 'system', content: [{ type: 'text', text }] }
}

/** The texts of a turn joined by one space, as the published Hugging Face template joins them. */
export function textOf(turn: Turn): string {
  return turn.content.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join(' ')
}

/** How many pictures a turn or a conversation shows. */
export function countPictures(turns: readonly Turn[]): number {
  return turns.reduce((sum, turn) => sum + turn.content.filter((part) => part.type === 'image').length, 0)
}

/**
 * Turns of the `conversations` of one LLaVA JSON row.
 *
 * As in the reference: an answer that comes before the first question is dropped, `<image>` moves to the front of its
 * turn wherever it stood, and the text around it is trimmed. `<image>` in an answer stays text.
 *
 * @throws SyntaxError when a message is not `{from: human | gpt | system, value: string}`
 */
export function fromLlavaConversations(conversations: readonly LlavaMessage[]): Turn[] {
  if (!Array.isArray(conversations)) {
    throw new SyntaxError('Cannot read conversations: found no list, expected a list of {from, value}')
  }
  const turns = conversations.map(readMessage)
  const first = turns.findIndex((turn) => turn.role !== 'system')
  return turns.filter((turn, index) => !(index === first && turn.role === 'assistant'))
}

/**
 * The `conversations` of a LLaVA JSON row for these turns; the inverse of `fromLlavaConversations`.
 *
 * @throws RangeError when a question holds the literal `<image>`, which the format cannot tell from a picture
 */
export function toLlavaConversations(turns: readonly Turn[]): LlavaMessage[] {
  return turns.map((turn, index) => {
    const text = textOf(turn)
    if (turn.role !== 'user') return { from: turn.role === 'assistant' ? 'gpt' : 'system', value: text }
    if (text.includes(PICTURE_MARK)) {
      throw new RangeError(`Cannot write turn ${index} as LLaVA JSON: found the text ${PICTURE_MARK} in a question`)
    }
    return { from: 'human', value: `${PICTURE_MARK}\n`.repeat(countPictures([turn])) + text }
  })
}

function readMessage(message: LlavaMessage, index: number): Turn {
  if (typeof message?.value !== 'string') {
    throw new SyntaxError(`Cannot read message ${index}: found value of type ${typeof message?.value}, expected string`)
  }
  switch (message.from) {
    case 'system':
      return systemTurn(message.value)
    case 'gpt':
      return assistantTurn(message.value)
    case 'human': {
      const chunks = message.value.split(PICTURE_MARK)
      const images = chunks.length - 1
      return userTurn(images === 0 ? message.value : chunks.join('').trim(), { images })
    }
    default:
      throw new SyntaxError(`Cannot read message ${index}: found from "${message.from}", expected human, gpt or system`)
  }
}
