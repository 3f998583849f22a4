/** A Redis or Valkey server of the machine for tests: in a folder of its own, with a log of everything it is told, killed and started again at will. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** The program, where there is one. */
export const redisProgram = ['valkey-server', 'redis-server'].find((name) => {
  try {
    execFileSync(name, ['--version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})

if (redisProgram === undefined)
  console.warn('found no valkey-server and no redis-server: tests of the queue are skipped')

export type RedisServer = {
  /** Database `index` of it. */
  readonly url: (index?: number) => string
  readonly kill: () => Promise<void>
  readonly start: () => Promise<void>
  /** Ends it and removes its folder. */
  readonly close: () => Promise<void>
}

/** Starts a server on a free port. */
export async function startRedisServer(...options: string[]): Promise<RedisServer> {
  const folder = await mkdtemp(join(tmpdir(), 'llava-redis-'))
  const port = await freePort()
  let server: ChildProcess | undefined
  const kill = async () => {
    if (server === undefined || server.exitCode !== null || server.signalCode !== null) return
    const gone = once(server, 'exit')
    server.kill('SIGKILL')
    await gone
  }
  const start = async () => {
    const words = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--appendonly', 'yes', '--save', '']
    server = spawn(redisProgram ?? '', [...words, ...options], { stdio: 'ignore' })
    for (let look = 0; look < 200 && !(await answers(port)); look++) await sleep(25)
  }
  await start()
  return {
    url: (index = 0) => `redis://127.0.0.1:${port}/${index}`,
    kill,
    start,
    close: async () => {
      await kill()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  probe.close()
  await once(probe, 'close')
  return port
}

/** Whether a server there says something to a command. */
async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  try {
    await once(socket, 'connect')
    socket.write('PING\r\n')
    const [said] = await once(socket, 'data')
    return /PONG|NOAUTH/.test(String(said))
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}
