import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href
const api = new URL('api.ts', import.meta.url).href

test('ONNX Runtime starts below a long command line and leaves nothing in the home folder: its telemetry is off', async () => {
  const home = mkdtempSync(join(tmpdir(), 'llava-home-'))
  const { ORT_DISABLE_TELEMETRY: _, XDG_CACHE_HOME: __, ...env } = process.env
  const program = `const { onnxRuntime } = await import('${api}'); onnxRuntime(); console.log('started')`
  const words = ['--import', loader, '--input-type=module', '--eval', program, 'x'.repeat(100_000)]
  try {
    const { stdout } = await promisify(execFile)(process.execPath, words, { env: { ...env, HOME: home } })
    expect(stdout).toBe('started\n')
    expect(readdirSync(home)).toEqual([])
  } finally {
    rmSync(home, { recursive: true })
  }
})
