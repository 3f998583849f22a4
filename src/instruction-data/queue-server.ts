/** The Redis or Valkey server of a queue: its address, what it must be like, and patience while it is away. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'

export type QueueAddress = {
  readonly url: string
  /** Without user and password: it may be printed. */
  readonly shown: string
}

/** @throws RangeError when it is no address of Redis; what it says holds no password */
export function queueAddress(text: string): QueueAddress {
  if (text === '') throw new RangeError('Cannot use a queue: found no address, and no REDIS_URL in the environment')
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^rediss?:$/.test(url.protocol) || url.hostname === '' || !/^\/?\d*$/.test(url.pathname)) {
    const harmless = text.replace(/\/\/.*@/, '//…@')
    throw new RangeError(
      `Cannot use the queue ${harmless}: expected an address such as redis://localhost:6379/0, or rediss:// with TLS`,
    )
  }
  const { protocol, hostname, port, pathname } = url
  return { url: url.href, shown: `${protocol}//${hostname}:${port || 6379}${pathname.replace(/\/$/, '')}` }
}

export type QueueServer = {
  readonly redis: Redis
  readonly shown: string
  /** Why the server cannot be used at the moment; undefined while it can. */
  readonly trouble: () => string | undefined
  /** Does something on the server, again and again while it is away, read-only, loading or out of memory. */
  readonly patiently: <T>(action: () => Promise<T>) => Promise<T>
  /** Whether a restart of the server keeps what it was told. */
  readonly keeps: boolean
  readonly close: () => void
}

/** Between attempts to reach a server that went away, in milliseconds. */
const longestReconnectMs = 1000
const connectMs = 10_000
/** Answers to commands that a server may give better ones to later. */
const passing = /^(?:LOADING|READONLY|MASTERDOWN|OOM|MISCONF|BUSY|TRYAGAIN|NOREPLICAS)\b/

/**
 * Connects to a server; from then on outages are waited for.
 * @param onTrouble told when the server goes away, and with undefined when it is back
 * @throws Error in one sentence when the server cannot be reached now, refuses the password, or may throw away what it is given
 */
export async function connectQueueServer(
  { url, shown }: QueueAddress,
  { onTrouble }: { onTrouble: (trouble: string | undefined) => void },
): Promise<QueueServer> {
  const { Redis } = await import('ioredis')
  const redis = new Redis(url, {
    lazyConnect: true,
    connectTimeout: connectMs,
    keepAlive: 10_000,
    maxRetriesPerRequest: null, // commands wait until the server is back
    retryStrategy: (attempt) => Math.min(longestReconnectMs, 50 * 2 ** attempt),
    reconnectOnError: (error) => (error.message.startsWith('READONLY') ? 2 : false), // another server took over
  })
  let latestError = 'it closed the connection'
  let trouble: string | undefined
  let usable = false
  const say = (text: string | undefined) => {
    if (!usable || (trouble === undefined) === (text === undefined)) return
    trouble = text
    onTrouble(text)
  }
  redis.on('error', (error: NodeJS.ErrnoException) => {
    latestError = reasonOf(error)
  })
  redis.on('close', () => say(`${shown} does not answer (${latestError})`))
  redis.on('ready', () => say(undefined))
  const close = () => {
    usable = false
    redis.disconnect()
  }
  try {
    const keeps = await inspect(redis, () => latestError)
    usable = true
    return { redis, shown, trouble: () => trouble, patiently: patient(say, shown), keeps, close }
  } catch (error) {
    close()
    throw new Error(`Cannot use the queue ${shown}: ${reasonOf(error as Error)}`, { cause: error })
  }
}

/** Whether the server keeps a log of what it is told. @throws Error when it cannot be used */
async function inspect(redis: Redis, latestError: () => string): Promise<boolean> {
  await new Promise<void>((resolve, reject) => {
    redis.once('ready', resolve)
    redis.once('close', () => reject(new Error(latestError())))
    redis.connect().catch(() => {}) // says only that it was closed
  })
  const info = await redis.info()
  const told = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1] ?? ''
  const version = told('redis_version')
  if (Number.parseInt(version, 10) < 6) throw new Error(`it is Redis ${version}, expected 6.2 or newer, or Valkey`)
  const policy = told('maxmemory_policy')
  if (told('maxmemory') !== '0' && policy !== '' && policy !== 'noeviction') {
    throw new Error(
      `it throws away keys when its memory is full (maxmemory-policy ${policy}), expected noeviction: answers were paid for`,
    )
  }
  return told('aof_enabled') === '1'
}

function patient(say: (trouble: string | undefined) => void, shown: string): QueueServer['patiently'] {
  let refused = 0 // actions; others may succeed meanwhile
  return async (action) => {
    let again = false
    try {
      for (;;) {
        try {
          return await action()
        } catch (error) {
          if (!(error instanceof Error) || error.name !== 'ReplyError') throw error
          if (!passing.test(error.message)) {
            throw new Error(`Cannot use the queue ${shown}: ${reasonOf(error)}`, { cause: error })
          }
          if (!again) refused += 1
          again = true
          say(`${shown} refuses for now (${reasonOf(error)})`)
          await sleep(longestReconnectMs)
        }
      }
    } finally {
      if (again) refused -= 1
      if (again && refused === 0) say(undefined)
    }
  }
}

function reasonOf(error: NodeJS.ErrnoException): string {
  const { message, code } = error
  if (message.startsWith('NOAUTH')) return 'it wants a password'
  if (/^(?:WRONGPASS|NOPERM|ERR (?:AUTH|invalid password|Client sent AUTH))/.test(message)) {
    return `it refused the password (${message.replace(/\.$/, '')})`
  }
  return (message || code || error.name).replace(/\.$/, '')
}
