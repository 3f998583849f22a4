/** Runs other programs for the gate and the chores: output collected, time measured, never longer than allowed. */

import { spawn } from 'node:child_process'

export type Finished = {
  /** Exit code; 1 when a signal ended the program. */
  readonly code: number
  /** What it wrote to both streams, in the order of arrival. */
  readonly output: string
  readonly seconds: number
}

/** The installed programs by file, so that no shell and no search path is involved. */
export const programs = {
  tsc: 'node_modules/typescript/bin/tsc',
  biome: 'node_modules/@biomejs/biome/bin/biome',
  llava: 'dist/cli/main.js',
} as const

/** Runs `node` with arguments in the repository root. */
export function runNode(args: readonly string[], options: { limitSeconds?: number } = {}): Promise<Finished> {
  return runProgram(process.execPath, args, options)
}

/** Runs a TypeScript file with tsx. */
export function runTypeScript(file: string, options: { limitSeconds?: number } = {}): Promise<Finished> {
  return runNode(['--import', 'tsx', file], options)
}

/** Runs a program without a terminal and without input. */
export async function runProgram(
  command: string,
  args: readonly string[],
  { limitSeconds = 300 }: { limitSeconds?: number } = {},
): Promise<Finished> {
  const started = performance.now()
  const signal = AbortSignal.timeout(limitSeconds * 1000)
  const child = spawn(command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1' },
    signal,
  })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk))
  const code = await new Promise<number>((resolve) => {
    child.on('error', (error) => {
      chunks.push(Buffer.from(signal.aborted ? `stopped after ${limitSeconds} s\n` : `${error.message}\n`))
      resolve(1)
    })
    child.on('close', (exitCode) => resolve(exitCode ?? 1))
  })
  return { code, output: Buffer.concat(chunks).toString('utf8'), seconds: (performance.now() - started) / 1000 }
}
