/**
 * From logits to the next token: pure functions over one row [V].
 *
 * Order of the steps as in transformers: repetition penalty (CTRL, Keskar et al. 2019 §4.1), temperature, top-k,
 * top-p (nucleus, Holtzman et al. 2020 §3.1), min-p (Nguyen et al. 2024 §3). Equal logits go to the lowest id.
 */

export type SamplingOptions = {
  /** 0 (default): always the most likely token. 1: the model's own distribution. */
  temperature?: number | undefined
  /** Only the k most likely tokens. */
  topK?: number | undefined
  /** Only the smallest set of most likely tokens whose probabilities sum to p. */
  topP?: number | undefined
  /** Only tokens at least this fraction as likely as the most likely one. */
  minP?: number | undefined
  /** Above 1, tokens that have occurred become less likely; 1 (default) changes nothing. */
  repetitionPenalty?: number | undefined
  /** The same seed, the same answer; a different one each time when left out. */
  seed?: number | undefined
}

export type Candidate = { readonly token: number; readonly probability: number }
export type LogProbability = { readonly token: number; readonly logprob: number }

/** Uniform numbers in [0, 1). */
export type Random = () => number

/** @throws RangeError naming the first option that is out of range */
export function checkSamplingOptions(options: SamplingOptions): void {
  const { temperature, topK, topP, minP, repetitionPenalty, seed } = options
  expectNumber('temperature', temperature, { expected: 'a number from 0 up', holds: (value) => value >= 0 })
  expectNumber('topK', topK, { expected: 'a whole number from 1 up', holds: (k) => Number.isInteger(k) && k >= 1 })
  expectNumber('topP', topP, { expected: 'a number above 0, at most 1', holds: (p) => p > 0 && p <= 1 })
  expectNumber('minP', minP, { expected: 'a number from 0 to 1', holds: (p) => p >= 0 && p <= 1 })
  expectNumber('repetitionPenalty', repetitionPenalty, { expected: 'a number above 0', holds: (value) => value > 0 })
  expectNumber('seed', seed, { expected: 'a whole number', holds: Number.isSafeInteger })
}

/** Refuses a number option that is given and out of range. */
export function expectNumber(
  name: string,
  value: number | undefined,
  { expected, holds }: { expected: string; holds: (value: number) => boolean },
): void {
  if (value === undefined || (Number.isFinite(value) && holds(value))) return
  throw new RangeError(`Cannot generate: ${name} is ${value}, expected ${expected}`)
}

/** The next token after logits [V]; `seen` are the tokens that the repetition penalty is about. */
export function chooseToken(
  logits: Float32Array,
  { options, seen, random }: { options: SamplingOptions; seen: Iterable<number>; random: Random },
): number {
  const { temperature = 0, repetitionPenalty = 1 } = options
  const penalised = repetitionPenalty === 1 ? logits : penalise(logits, { seen, penalty: repetitionPenalty })
  return temperature === 0 ? greedy(penalised) : draw(candidates(penalised, { ...options, temperature }), random())
}

/** The most likely token, the lowest id of several. */
export function greedy(logits: Float32Array): number {
  const best = largest(logits)
  return logits.indexOf(best)
}

/** Logits with those of seen tokens divided by the penalty, or multiplied where they are negative. */
export function penalise(
  logits: Float32Array,
  { seen, penalty }: { seen: Iterable<number>; penalty: number },
): Float32Array {
  const penalised = logits.slice()
  for (const token of new Set(seen)) {
    const logit = penalised[token]
    if (logit !== undefined) penalised[token] = logit > 0 ? logit / penalty : logit * penalty
  }
  return penalised
}

/** The tokens that may be drawn, most likely first, with probabilities that sum to 1. */
export function candidates(
  logits: Float32Array,
  { temperature = 1, topK = logits.length, topP = 1, minP = 0 }: SamplingOptions,
): readonly Candidate[] {
  const best = largest(logits)
  // Relative to the most likely token: that one has 1.
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - best) / temperature))
  const ranked = mostLikely(weights, { count: topK, share: topP })
  const nucleus = untilShare(ranked.slice(0, topK), { weights, share: topP })
  const kept = nucleus.filter((token) => (weights[token] ?? 0) >= minP)
  const total = kept.reduce((sum, token) => sum + (weights[token] ?? 0), 0)
  return kept.map((token) => ({ token, probability: (weights[token] ?? 0) / total }))
}

/** The candidate at `position` in [0, 1) of the cumulative distribution. */
export function draw(from: readonly Candidate[], position: number): number {
  let cumulative = 0
  for (const { token, probability } of from) {
    cumulative += probability
    if (position < cumulative) return token
  }
  const last = from.at(-1) // rounding may leave the sum just below 1
  if (last === undefined) throw new RangeError('Cannot draw a token: found no candidates, expected at least one')
  return last.token
}

/** Natural logarithms of the model's own probabilities: of `token`, and of the `count` most likely tokens. */
export function logProbabilities(
  logits: Float32Array,
  { token, count }: { token: number; count: number },
): { logprob: number; alternatives: LogProbability[] } {
  const best = largest(logits)
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - best), 0)
  const normalizer = best + Math.log(total)
  const of = (id: number) => (logits[id] ?? Number.NEGATIVE_INFINITY) - normalizer
  const weights = Float64Array.from(logits, (logit) => Math.exp(logit - best))
  const ranked = count === 0 ? [] : mostLikely(weights, { count, share: 1 }).slice(0, count)
  return { logprob: of(token), alternatives: ranked.map((id) => ({ token: id, logprob: of(id) })) }
}

/** A small deterministic generator: the same seed gives the same numbers on every machine (mulberry32). */
export function seededRandom(seed: number): Random {
  let state = (seed ^ Math.imul(Math.floor(seed / 2 ** 32), 0x9e3779b1)) >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** The largest logit, once it is sure that they are numbers. */
function largest(logits: Float32Array): number {
  let best = Number.NEGATIVE_INFINITY
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token] ?? Number.NaN
    // Negative infinity is a token that cannot come; anything else that is no finite number is damage.
    if (Number.isNaN(logit) || logit === Number.POSITIVE_INFINITY) {
      throw new Error(`Cannot choose a token: logit ${token} of ${logits.length} is ${logit}, expected a number`)
    }
    if (logit > best) best = logit
  }
  if (best === Number.NEGATIVE_INFINITY) {
    throw new Error(`Cannot choose a token: no logit of ${logits.length} is above -Infinity, expected at least one`)
  }
  return best
}

/**
 * Tokens by falling weight: at least the first `count`, or fewer whose weights reach `share` of the total. Sorting a whole vocabulary for
 * every token is slow, so unlikely tokens are left out as long as the others suffice.
 */
function mostLikely(
  weights: Float64Array,
  { count, share }: { count: number; share: number },
): readonly number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  for (const floor of [1e-3, 1e-6, 0]) {
    const tokens: number[] = []
    let mass = 0
    for (let token = 0; token < weights.length; token++) {
      const weight = weights[token] ?? 0
      if (weight < floor) continue
      tokens.push(token)
      mass += weight
    }
    if (floor === 0 || tokens.length >= count || (share < 1 && mass >= share * total)) {
      return tokens.sort((a, b) => (weights[b] ?? 0) - (weights[a] ?? 0) || a - b)
    }
  }
  return []
}

/** The first tokens that together have `share` of the weight of all given ones, with the one that crosses the line. */
function untilShare(
  tokens: readonly number[],
  { weights, share }: { weights: Float64Array; share: number },
): readonly number[] {
  if (share === 1) return tokens
  const limit = share * tokens.reduce((sum, token) => sum + (weights[token] ?? 0), 0)
  let cumulative = 0
  const end = tokens.findIndex((token) => {
    cumulative += weights[token] ?? 0
    return cumulative >= limit
  })
  return end < 0 ? tokens : tokens.slice(0, end + 1)
}
