/**
 * What an endpoint says about its limits in the headers of its answers, and how long requests should wait because of it: better than finding out by being
 * refused.
 *
 * Headers are OpenAI's (`x-ratelimit-remaining-requests: 59`, `x-ratelimit-reset-requests: 1.2s`), which most servers repeat, and Anthropic's
 * (`anthropic-ratelimit-requests-remaining: 59`, `anthropic-ratelimit-requests-reset: 2026-01-01T00:00:10Z`).
 */

/** One limit as an endpoint tells it. */
export type ToldLimit = {
  /** What may come at once when all is unused; undefined when the endpoint does not say. */
  readonly limit: number | undefined
  /** What may still come now. */
  readonly remaining: number
  /** Until all may come again, in milliseconds. */
  readonly resetMs: number
}

export type EndpointLimits = { readonly requests?: ToldLimit; readonly tokens?: ToldLimit }

const kinds = ['requests', 'tokens'] as const
type Kind = (typeof kinds)[number]

/** The limits in the headers of a response; undefined when there are none that can be read. */
export function limitsIn(headers: Headers | undefined, now = Date.now()): EndpointLimits | undefined {
  if (headers === undefined) return undefined
  const found: Partial<Record<Kind, ToldLimit>> = {}
  for (const kind of kinds) {
    const told = (field: string) =>
      headers.get(`x-ratelimit-${field}-${kind}`) ?? headers.get(`anthropic-ratelimit-${kind}-${field}`)
    const remaining = countOf(told('remaining'))
    const resetMs = durationOf(told('reset'), now)
    if (remaining === undefined || resetMs === undefined) continue
    found[kind] = { limit: countOf(told('limit')), remaining, resetMs }
  }
  return found.requests === undefined && found.tokens === undefined ? undefined : found
}

/** How long a refused request waits when `Retry-After` is not there: until what is used up has come back. */
export function waitUntilReset(limits: EndpointLimits | undefined): number | undefined {
  const exhausted = kinds.flatMap((kind) => limits?.[kind] ?? []).filter(({ remaining }) => remaining < 1)
  return exhausted.length === 0 ? undefined : Math.max(...exhausted.map(({ resetMs }) => resetMs))
}

/** What was learned of the limits of an endpoint. */
export type LearnedLimits = {
  /** Takes one request of so many tokens; the result is how many milliseconds it has to wait. */
  readonly take: (tokens: number) => number
  /** Notes what came with the answer to a request that left at `sentAt`. */
  readonly learn: (limits: EndpointLimits | undefined, sentAt: number) => void
}

/** Nothing is held back before an endpoint says something, nor by a limit that it does not speak of. */
export function createLearnedLimits({ now = Date.now }: { now?: () => number } = {}): LearnedLimits {
  const learned = { requests: createLearnedLimit(now), tokens: createLearnedLimit(now) }
  return {
    take: (tokens) => Math.max(learned.requests.take(1), learned.tokens.take(tokens)),
    learn: (limits, sentAt) => {
      for (const kind of kinds) {
        const told = limits?.[kind]
        if (told !== undefined) learned[kind].learn(told, sentAt)
      }
    },
  }
}

/**
 * One limit, as a bucket that fills steadily. An endpoint counts a request when it comes, and says so when the answer is there, many seconds later: what it
 * says held when the request left, and what left since then is subtracted.
 */
function createLearnedLimit(now: () => number) {
  let bucket: { content: number; most: number; perMs: number; filledAt: number; toldAt: number } | undefined
  let taken: { leavesAt: number; amount: number }[] = []
  const remember = (one: { leavesAt: number; amount: number }) => {
    taken.push(one)
    if (taken.length > longestMemory) taken = taken.slice(-longestMemory / 2)
  }
  return {
    take(amount: number): number {
      let wait = 0
      if (bucket !== undefined) {
        const { most, perMs, filledAt } = bucket
        const content = Math.min(most, bucket.content + (now() - filledAt) * perMs) - amount
        bucket = { ...bucket, content, filledAt: now() }
        wait = content >= 0 ? 0 : Math.ceil(-content / perMs)
      }
      remember({ leavesAt: now() + wait, amount })
      return wait
    },
    learn({ limit, remaining, resetMs }: ToldLimit, sentAt: number): void {
      if (bucket !== undefined && sentAt < bucket.toldAt) return // an answer that overtook this one says more
      const most = limit ?? Math.max(bucket?.most ?? 1, remaining)
      const missing = most - remaining
      const told = missing > 0 && resetMs > 0 ? missing / resetMs : (bucket?.perMs ?? most / 60_000)
      const perMs = Math.max(Number.MIN_VALUE, Math.min(told, most / 1000)) // rounded to nothing, a reset would promise everything
      taken = taken.filter(({ leavesAt }) => leavesAt > sentAt)
      const since = taken.reduce((sum, { amount }) => sum + amount, 0)
      const content = Math.min(most, remaining + (now() - sentAt) * perMs) - since
      bucket = { content, most, perMs, filledAt: now(), toldAt: sentAt }
    },
  }
}

/** Requests that are remembered while an endpoint says nothing. */
const longestMemory = 2048

function countOf(text: string | null): number | undefined {
  const value = /^\d+(\.\d+)?$/.test(text?.trim() ?? '') ? Number(text) : Number.NaN
  return Number.isFinite(value) ? value : undefined
}

const unitMs: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000, ms: 1 }

/** `6m0s`, `120ms`, `7.66s`, plain seconds, or a time of day. */
function durationOf(text: string | null, now: number): number | undefined {
  const told = text?.trim() ?? ''
  if (/^\d+(\.\d+)?$/.test(told)) return Number(told) * 1000
  if (/^(\d+(\.\d+)?(ms|d|h|m|s))+$/.test(told)) {
    const parts = told.matchAll(/(\d+(?:\.\d+)?)(ms|d|h|m|s)/g)
    return [...parts].reduce((sum, [, amount, unit = '']) => sum + Number(amount) * (unitMs[unit] ?? 0), 0)
  }
  const date = /^\d{4}-/.test(told) ? Date.parse(told) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}
