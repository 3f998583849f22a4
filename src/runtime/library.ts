/** Finds the ONNX Runtime shared library that the package `onnxruntime-node` brings for this platform. */
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

/** File names: libonnxruntime.so.1 on Linux, libonnxruntime.1.dylib on macOS, onnxruntime.dll on Windows. */
const libraryFile = /^(libonnxruntime(\.\d+)*\.dylib|libonnxruntime\.so(\.\d+)*|onnxruntime\.dll)$/

/**
 * The absolute path of the library.
 *
 * @param options `root`: the folder of onnxruntime-node; `platform` and `arch`: as in `process`
 * @throws Error when the package is not installed or has no library for this platform and processor
 */
export function findLibrary(options: { root?: string; platform?: string; arch?: string } = {}): string {
  const { root = packageFolder(), platform = process.platform, arch = process.arch } = options
  const binaries = join(root, 'bin', 'napi-v6')
  const folder = join(binaries, platform, arch)
  const files = existsSync(folder) ? readdirSync(folder).filter((file) => libraryFile.test(file)) : []
  const [file] = files.sort((a, b) => a.length - b.length)
  if (file === undefined) {
    throw new Error(
      `Cannot find ONNX Runtime for ${platform} ${arch}: onnxruntime-node has ${available(binaries).join(', ') || 'none'}`,
    )
  }
  return join(folder, file)
}

function packageFolder(): string {
  const require = createRequire(import.meta.url)
  try {
    return dirname(require.resolve('onnxruntime-node/package.json'))
  } catch (cause) {
    throw new Error('Cannot find ONNX Runtime: the package onnxruntime-node is not installed', { cause })
  }
}

/** The platforms that have a library, e.g. `linux x64`. */
function available(binaries: string): string[] {
  if (!existsSync(binaries)) return []
  return readdirSync(binaries).flatMap((platform) =>
    readdirSync(join(binaries, platform))
      .filter((arch) => readdirSync(join(binaries, platform, arch)).some((file) => libraryFile.test(file)))
      .map((arch) => `${platform} ${arch}`),
  )
}
