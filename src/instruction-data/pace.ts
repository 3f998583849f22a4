/** How fast requests may leave: as many at once as the endpoint bears, so many requests and tokens a minute, and no more dollars than allowed. */

import type { TokenUsage } from './teacher.ts'

/** Requests at once: one more after as many successes as there are now, three quarters after a sign of overload (additive increase, multiplicative decrease). */
export type Concurrency = { readonly limit: () => number; readonly succeeded: () => void; readonly slowed: () => void }

/** Signs of overload come in flocks, of which the first one counts. */
const flockMs = 1000

export function adaptiveConcurrency({
  first,
  most,
  now = Date.now,
}: {
  first: number
  most: number
  now?: () => number
}): Concurrency {
  let limit = Math.min(first, most)
  let slowedAt = Number.NEGATIVE_INFINITY
  return {
    limit: () => Math.max(1, Math.floor(limit)),
    succeeded: () => {
      limit = Math.min(most, limit + 1 / limit)
    },
    slowed: () => {
      if (now() - slowedAt < flockMs) return
      slowedAt = now()
      limit = Math.max(1, limit * 0.75)
    },
  }
}

/** A bucket that fills steadily. What is taken beyond its content is owed, and the taker waits until it has come. */
export type Bucket = {
  /** Takes an amount; the result is how many milliseconds the taker has to wait. */
  readonly take: (amount: number) => number
  /** Gives back what was taken and not used. */
  readonly giveBack: (amount: number) => void
}

/** Providers count by the minute; a bucket as large as that would let a minute's worth go at once, right after another. */
export const bucketSeconds = 10

export function createBucket({ perMinute, now = Date.now }: { perMinute: number; now?: () => number }): Bucket {
  const perMs = perMinute / 60_000
  const most = perMs * bucketSeconds * 1000
  let content = most
  let filledAt = now()
  const fill = () => {
    content = Math.min(most, content + (now() - filledAt) * perMs)
    filledAt = now()
  }
  return {
    take: (amount) => {
      fill()
      content -= amount
      return content >= 0 ? 0 : Math.ceil(-content / perMs)
    },
    giveBack: (amount) => {
      content = Math.min(most, content + amount)
    },
  }
}

/** A delay before another attempt: anywhere below a bound that doubles each time ("full jitter", so that many do not come back at once). */
export function backOff(
  attempt: number,
  {
    random = Math.random,
    firstMs = 1000,
    mostMs = 60_000,
  }: { random?: () => number; firstMs?: number; mostMs?: number } = {},
): number {
  return random() * Math.min(mostMs, firstMs * 2 ** attempt)
}

/** Dollars for a million tokens. */
export type Price = TokenUsage

export function costOf({ input, output }: TokenUsage, price: Price): number {
  return (input * price.input + output * price.output) / 1e6
}

/**
 * Tokens of messages, guessed from their bytes: three bytes a token is on the safe side for English (about four and a half) and near the truth for the
 * digits of boxes.
 */
export function estimateTokens(messages: readonly { readonly content: string }[]): number {
  return messages.reduce((sum, { content }) => sum + Math.ceil(Buffer.byteLength(content) / 3) + 6, 4)
}

/** Money that is spent, and money set aside for requests that are on their way. */
export type Budget = {
  /** Sets an amount aside; false when that might exceed the limit. */
  readonly reserve: (usd: number) => boolean
  /** What was set aside for one request, and what it cost in the end. */
  readonly settle: (reserved: number, cost: number) => void
  readonly spent: () => number
  readonly reserved: () => number
}

export function createBudget({ spent: before, most }: { spent: number; most: number }): Budget {
  let [spent, reserved, open] = [before, 0, 0]
  return {
    reserve: (usd) => {
      if (spent + reserved + usd > most) return false
      reserved += usd
      open += 1
      return true
    },
    settle: (amount, cost) => {
      open -= 1
      reserved = open === 0 ? 0 : reserved - amount // no rounding errors are carried on
      spent += cost
    },
    spent: () => spent,
    reserved: () => reserved,
  }
}
