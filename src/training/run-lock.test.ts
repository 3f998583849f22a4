import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest'
import { writeOneFile } from '../../tests/one-file.ts'
import { lockRunFolder } from './run-lock.ts'

let folder = ''
let path = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-lock-'))
  path = join(folder, 'lock.json')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('lockRunFolder', () => {
  test('refuses a second one until the first gives back', async () => {
    const giveBack = await lockRunFolder(folder)
    await expect(lockRunFolder(folder)).rejects.toThrow(`Cannot train in ${folder}: this process trains in it`)
    await giveBack()
    expect(await readdir(folder)).toEqual([])
    await (await lockRunFolder(folder))()
  })

  test('refuses while another process lives, and takes over what it left when it was killed', async () => {
    const beside = `${folder}-module`
    onTestFinished(() => rm(beside, { recursive: true }))
    const module = await writeOneFile(fileURLToPath(new URL('run-lock.ts', import.meta.url)), beside)
    const source = `
      import { lockRunFolder } from '${pathToFileURL(module).href}'
      await lockRunFolder(process.argv[1])
      console.log('locked')
      setInterval(() => {}, 1000)`
    const args = ['--input-type=module', '-e', source, folder]
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    await expect(lockRunFolder(folder)).rejects.toThrow(`process ${child.pid} trains in it`)
    child.kill('SIGKILL')
    await once(child, 'exit')
    const giveBack = await lockRunFolder(folder)
    expect(JSON.parse(await readFile(path, 'utf8')).pid).toBe(process.pid)
    await giveBack()
    expect(await readdir(folder)).toEqual([])
  }, 60_000)

  test.skipIf(process.platform !== 'linux')(
    'knows a process id that is used again from the process before',
    async () => {
      const owner = { pid: process.ppid, host: hostname(), birth: 'an earlier boot 12' }
      await writeFile(path, JSON.stringify(owner))
      await (await lockRunFolder(folder))()
    },
  )

  test('believes another machine as long as its lock is touched', async () => {
    await writeFile(path, JSON.stringify({ pid: 7, host: 'elsewhere', birth: '' }))
    await expect(lockRunFolder(folder)).rejects.toThrow('process 7 on elsewhere trains in it')
    const longAgo = new Date(Date.now() - 600_000)
    await utimes(path, longAgo, longAgo)
    await (await lockRunFolder(folder))()
  })

  test('waits with a half-written lock until it is old', async () => {
    await writeFile(path, '{"pi')
    await expect(lockRunFolder(folder)).rejects.toThrow('another process trains in it')
    const before = new Date(Date.now() - 20_000)
    await utimes(path, before, before)
    await (await lockRunFolder(folder))()
  })
})
