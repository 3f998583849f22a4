/** What can end a command from outside, as one AbortSignal: Ctrl-C, a termination request, output that nobody reads any more. */

/** The reason of the signal. `message` is empty when there is nothing to say. */
export type Interruption = { readonly exitCode: number; readonly message: string }

export type Watch = {
  readonly signal: AbortSignal
  /** Why the signal fired, undefined while it has not. */
  readonly interruption: () => Interruption | undefined
  /** Ends the command from inside: a Ctrl-C that came as a key. */
  readonly interrupt: (exitCode: number) => void
  readonly stop: () => void
}

/** Starts watching. The first Ctrl-C asks the command to end properly; the second ends the process at once. */
export function watchInterruptions(): Watch {
  const controller = new AbortController()
  let interruption: Interruption | undefined
  const interrupt = (reason: Interruption) => {
    if (interruption !== undefined) return
    interruption = reason
    controller.abort(new DOMException('The command was interrupted', 'AbortError'))
  }
  const onSignal = (name: NodeJS.Signals) => {
    const exitCode = name === 'SIGINT' ? 130 : 143
    if (interruption !== undefined) process.exit(exitCode)
    interrupt({ exitCode, message: '' })
  }
  const onOutputError = (error: NodeJS.ErrnoException) => {
    // `llava ask … | head -1`: the reader has had enough, which is no failure
    if (error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED') interrupt({ exitCode: 0, message: '' })
    else interrupt({ exitCode: 1, message: `Cannot write the output: ${error.message}` })
  }
  process.on('SIGINT', onSignal)
  process.on('SIGTERM', onSignal)
  process.stdout.on('error', onOutputError)
  for (const stream of [process.stdout, process.stderr]) {
    if (!stream.listeners('error').includes(ignore)) stream.on('error', ignore) // may come after the command's end
  }
  return {
    signal: controller.signal,
    interruption: () => interruption,
    interrupt: (exitCode) => interrupt({ exitCode, message: '' }),
    stop: () => {
      process.off('SIGINT', onSignal)
      process.off('SIGTERM', onSignal)
      process.stdout.off('error', onOutputError)
    },
  }
}

/** Output that fails where nobody is left to be told. */
const ignore = () => {}
