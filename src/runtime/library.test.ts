import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { findLibrary } from './library.ts'

describe('findLibrary', () => {
  test('finds the library of this machine', () => {
    expect(basename(findLibrary())).toMatch(/onnxruntime/)
  })

  test('knows the file names of Linux, macOS and Windows', () => {
    const root = packageWith({
      'linux/x64': ['onnxruntime_binding.node', 'libonnxruntime.so.1', 'libonnxruntime_providers_shared.so'],
      'darwin/arm64': ['libonnxruntime.1.30.0.dylib', 'libonnxruntime.1.dylib'],
      'win32/x64': ['DirectML.dll', 'onnxruntime.dll'],
    })
    expect(basename(findLibrary({ root, platform: 'linux', arch: 'x64' }))).toBe('libonnxruntime.so.1')
    expect(basename(findLibrary({ root, platform: 'darwin', arch: 'arm64' }))).toBe('libonnxruntime.1.dylib')
    expect(basename(findLibrary({ root, platform: 'win32', arch: 'x64' }))).toBe('onnxruntime.dll')
  })

  test('says which platforms there are when this one has no library', () => {
    const root = packageWith({ 'linux/x64': ['libonnxruntime.so.1'], 'darwin/arm64': ['libonnxruntime.1.dylib'] })
    expect(() => findLibrary({ root, platform: 'darwin', arch: 'x64' })).toThrow(
      /^Cannot find ONNX Runtime for darwin x64: onnxruntime-node has (?=.*linux x64)(?=.*darwin arm64)/,
    )
    expect(() => findLibrary({ root: join(root, 'absent') })).toThrow(/has none$/)
  })
})

/** A folder laid out like onnxruntime-node, with empty files. */
function packageWith(files: Record<string, string[]>): string {
  const root = mkdtempSync(join(tmpdir(), 'library-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  for (const [folder, names] of Object.entries(files)) {
    mkdirSync(join(root, 'bin', 'napi-v6', folder), { recursive: true })
    for (const name of names) writeFileSync(join(root, 'bin', 'napi-v6', folder, name), '')
  }
  return root
}
