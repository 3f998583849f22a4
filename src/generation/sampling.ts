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

/** The tokens that may be drawn, with probabilities that sum to 1; most likely first where top-k or top-p had to rank them. */
export function candidates(
  logits: Float32Array,
  { temperature = 1, topK = logits.length, topP = 1, minP = 0 }: SamplingOptions,
): readonly Candidate[] {
  const best = largest(logits)
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - best) / temperature))
  const row = { logits, weights }
  const weightOf = (token: number) => weights[token] ?? 0
  const sumOf = (tokens: readonly number[]) => tokens.reduce((sum, token) => sum + weightOf(token), 0)
  let kept = topK < logits.length ? topTokens(row, topK) : topP < 1 ? nucleus(row, topP) : possible(weights, 0)
  if (topK < logits.length && topP < 1) kept = untilMass(kept, { weights, mass: topP * sumOf(kept) })
  if (minP > 0) kept = kept.filter((token) => weightOf(token) >= minP)
  const total = sumOf(kept)
  return kept.map((token) => ({ token, probability: weightOf(token) / total }))
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
  const ranked = count === 0 ? [] : topTokens({ logits, weights }, count)
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

/** A row [V] with its probabilities up to a factor, relative to the most likely token: that one has 1. */
type Row = { readonly logits: Float32Array; readonly weights: Float64Array }

/** The `count` most likely tokens, ranked. */
function topTokens({ logits, weights }: Row, count: number): readonly number[] {
  const enough = floors.find((floor) => floor === 0 || possible(weights, floor).length >= count)
  return rank(possible(weights, enough ?? 0), logits).slice(0, count)
}

/** The most likely tokens whose weights reach `share` of all weight, ranked, with the one that crosses the line. */
function nucleus({ logits, weights }: Row, share: number): readonly number[] {
  const mass = share * weights.reduce((sum, weight) => sum + weight, 0)
  const massOf = (tokens: readonly number[]) => tokens.reduce((sum, token) => sum + (weights[token] ?? 0), 0)
  const enough = floors.find((floor) => floor === 0 || massOf(possible(weights, floor)) >= mass)
  return untilMass(rank(possible(weights, enough ?? 0), logits), { weights, mass })
}

/** Ranking a whole vocabulary for every token is slow: tokens far below the most likely one are looked at only when needed. */
const floors = [1e-3, 1e-6, 0] as const

/** Tokens that can come at all and weigh at least `floor`, by id. */
function possible(weights: Float64Array, floor: number): number[] {
  const tokens: number[] = []
  for (const [token, weight] of weights.entries()) if (weight > 0 && weight >= floor) tokens.push(token)
  return tokens
}

/** By falling logit, which tells tokens apart that have equal weights after rounding. */
function rank(tokens: number[], logits: Float32Array): readonly number[] {
  return tokens.sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b)
}

/** The first tokens whose weights reach `mass`. */
function untilMass(
  tokens: readonly number[],
  { weights, mass }: { weights: Float64Array; mass: number },
): readonly number[] {
  let cumulative = 0
  const end = tokens.findIndex((token) => {
    cumulative += weights[token] ?? 0
    return cumulative >= mass
  })
  return end < 0 ? tokens : tokens.slice(0, end + 1)
}
