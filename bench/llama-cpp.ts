/** llama.cpp measured on the same shapes: its programs are found in the folder that LLAMA_CPP_BIN names. */

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import type { LlavaConfig } from '../src/model/config.ts'
import { writeLanguageGguf, writeVisionGguf } from './gguf.ts'

export type LlamaCpp = {
  /** Milliseconds to encode a picture: vision encoder and projector, float16. */
  picture(): Promise<number>
  /** Tokens per second of a prompt. */
  prompt(tokens: number): Promise<number>
  /** Tokens per second of an answer after `context` tokens. */
  decode(context: number): Promise<number>
  /** Tokens per second in all of `rows` answers at a time; undefined without llama-server. */
  together(options: { rows: number; context: number; tokens: number }): Promise<number | undefined>
  close(): Promise<void>
}

const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))
export const port = 18_473

/** Undefined, with the reason, where the programs are not there. */
export async function openLlamaCpp(config: LlavaConfig): Promise<LlamaCpp | { absent: string }> {
  const bin = process.env.LLAMA_CPP_BIN
  if (bin === undefined) return { absent: 'LLAMA_CPP_BIN names no folder' }
  const missing = ['llama-bench', 'llama-mtmd-cli'].filter((name) => !existsSync(join(bin, name)))
  if (missing.length > 0) return { absent: `${bin} has no ${missing.join(' and no ')}` }
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  const [language, vision] = [join(folder, 'language.gguf'), join(folder, 'vision.gguf')]
  await writeLanguageGguf(language, config)
  await writeVisionGguf(vision, config)
  const call = async (name: string, words: readonly string[]) => {
    const { stdout, stderr } = await promisify(execFile)(join(bin, name), [...words], { maxBuffer: 2 ** 26 })
    return { stdout, stderr }
  }
  const rate = async (words: readonly string[]) => {
    const { stdout } = await call('llama-bench', ['-m', language, '-t', '2', '-r', '1', '-o', 'json', ...words])
    return (JSON.parse(stdout) as { avg_ts: number }[])[0]?.avg_ts ?? Number.NaN
  }
  return {
    async picture() {
      const models = ['-m', language, '--mmproj', vision, '--image', picture, '--chat-template', 'vicuna']
      const { stdout, stderr } = await call('llama-mtmd-cli', [...models, '-p', 'hi', '-n', '1', '-t', '2'])
      return Number(/(?:encoding done|slice encoded) in (\d+) ms/.exec(stderr + stdout)?.[1] ?? Number.NaN)
    },
    prompt: (tokens) => rate(['-p', `${tokens}`, '-n', '0']),
    decode: (context) => rate(['-p', '0', '-n', '12', '-d', `${context}`]),
    async together(options) {
      if (!existsSync(join(bin, 'llama-server'))) return undefined
      return serve(join(bin, 'llama-server'), language, options)
    },
    close: () => rm(folder, { recursive: true }),
  }
}

async function serve(
  program: string,
  model: string,
  { rows, context, tokens }: { rows: number; context: number; tokens: number },
): Promise<number> {
  const size = (context + tokens + 16) * rows
  const words = ['-m', model, '-t', '2', '-np', `${rows}`, '-c', `${size}`, '--port', `${port}`, '--no-webui']
  const server = spawn(program, words, { stdio: 'ignore' })
  try {
    await untilReady(server)
    const ask = async (row: number) => {
      const prompt = Array.from({ length: context }, (_, i) => 300 + row * 1000 + i)
      const response = await fetch(`http://127.0.0.1:${port}/completion`, {
        method: 'POST',
        body: JSON.stringify({ prompt, n_predict: tokens, ignore_eos: true, cache_prompt: false, temperature: 0 }),
      })
      return (await response.json()) as { timings: { predicted_ms: number; predicted_n: number } }
    }
    const answers = await Promise.all(Array.from({ length: rows }, (_, row) => ask(row)))
    // All slots begin to answer when the last prompt is read; each reports the time of its own answer.
    return answers.reduce((sum, { timings }) => sum + timings.predicted_n / (timings.predicted_ms / 1000), 0)
  } finally {
    server.kill()
  }
}

/** Waits until a server that was started on `port` answers. */
export async function untilReady(server: ChildProcess): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (server.exitCode !== null) throw new Error(`llama-server ended with code ${server.exitCode}`)
    const health = await fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined)
    if (health?.ok) return
    await setTimeout(200)
  }
  throw new Error('llama-server is not ready after two minutes')
}
