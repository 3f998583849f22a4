/**
 * How fast all workers of a run may send, together: buckets of requests and tokens that fill steadily, and pauses that an endpoint asked for. They lie on the
 * server and go by its clock. BullMQ's own limiter counts jobs alone, and lets all of a period's go at its beginning.
 */

import { bucketSeconds } from './pace.ts'
import { paceKey, type QueuedRun } from './queue-format.ts'
import type { QueueServer } from './queue-server.ts'

export type QueuePace = {
  /** Takes one request of so many tokens; the result is how many milliseconds it has to wait. */
  readonly take: (tokens: number) => Promise<number>
  /** Gives back what was taken and not used. */
  readonly giveBack: (unused: { requests: number; tokens: number }) => Promise<void>
  /** Nothing more is sent for so long. */
  readonly pause: (ms: number) => Promise<void>
  /** How long the present pause lasts. */
  readonly pauseLeft: () => Promise<number>
}

/** The same as `createBucket` does in one process. */
const takeScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wait = math.max(0, tonumber(redis.call('HGET', KEYS[1], 'pausedUntil') or 0) - now)
for kind = 1, 2 do
  local perMs = tonumber(ARGV[kind]) / 60000
  local amount = tonumber(ARGV[kind + 2])
  if perMs > 0 then
    local most = perMs * tonumber(ARGV[5]) * 1000
    local content = tonumber(redis.call('HGET', KEYS[1], 'content' .. kind) or most)
    local filledAt = tonumber(redis.call('HGET', KEYS[1], 'filledAt' .. kind) or now)
    content = math.min(most, math.min(most, content + (now - filledAt) * perMs) - amount)
    redis.call('HSET', KEYS[1], 'content' .. kind, string.format('%.6f', content), 'filledAt' .. kind, now)
    if content < 0 then wait = math.max(wait, math.ceil(-content / perMs)) end
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return wait
`

/** How long the server remembers what nobody asks for any more. */
const forgottenMs = 86_400_000

const pauseScript = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ = math.max(tonumber(redis.call('HGET', KEYS[1], 'pausedUntil') or 0), now + tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'pausedUntil', until_)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return until_ - now
`

export function createQueuePace(
  { id, requestsPerMinute, tokensPerMinute }: QueuedRun,
  { redis, patiently }: Pick<QueueServer, 'redis' | 'patiently'>,
): QueuePace {
  const key = paceKey(id)
  const limits = [requestsPerMinute ?? 0, tokensPerMinute ?? 0]
  const take = (requests: number, tokens: number) =>
    patiently(async () =>
      Number(await redis.eval(takeScript, 1, key, ...limits, requests, tokens, bucketSeconds, forgottenMs)),
    )
  const pause = (ms: number) =>
    patiently(async () => Number(await redis.eval(pauseScript, 1, key, Math.ceil(ms), forgottenMs)))
  return {
    take: (tokens) => take(1, tokens),
    giveBack: async ({ requests, tokens }) => {
      if (limits.some((limit) => limit > 0)) await take(-requests, -tokens)
    },
    pause: async (ms) => void (await pause(ms)),
    pauseLeft: () => pause(0),
  }
}
