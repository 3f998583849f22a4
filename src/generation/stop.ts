/** When an answer ends: stop strings, also those that straddle tokens, found in text as it streams. */

export type StopFilter = {
  /** Text that can no longer become part of a stop string; `stopped` once one is complete. Text after it is dropped. */
  push(text: string): { text: string; stopped: boolean }
  /** What was held back, when no stop string came of it. */
  flush(): string
}

/**
 * A filter that ends text before the first of `stops`. What could still become one of them is held back.
 *
 * @throws RangeError when a stop string is empty
 */
export function createStopFilter(stops: readonly string[]): StopFilter {
  if (stops.includes('')) throw new RangeError('Cannot generate: found an empty stop string, expected text')
  let held = ''
  let stopped = false
  return {
    push(text) {
      if (stopped) return { text: '', stopped }
      held += text
      const starts = stops.map((stop) => held.indexOf(stop)).filter((start) => start >= 0)
      stopped = starts.length > 0
      const end = stopped ? Math.min(...starts) : held.length - heldBack(held, stops)
      const passed = held.slice(0, end)
      held = stopped ? '' : held.slice(end)
      return { text: passed, stopped }
    },
    flush() {
      const rest = held
      held = ''
      return rest
    },
  }
}

/** Length of the longest end of `text` that begins a stop string. */
function heldBack(text: string, stops: readonly string[]): number {
  const longest = stops.reduce((length, stop) => Math.max(length, stop.length - 1), 0)
  for (let length = Math.min(longest, text.length); length > 0; length--) {
    const end = text.slice(-length)
    if (stops.some((stop) => stop.length > length && stop.startsWith(end))) return length
  }
  return 0
}
