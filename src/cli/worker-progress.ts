/** What `llava worker` says while it works. */

import type { RunWorker, RunWorkerStatus } from '../instruction-data/queue-worker.ts'
import { clearStatus, drawStatus, formatCount, printable, type Terminal, writeLine } from './terminal.ts'

const linesEveryMs = 30_000 // where lines cannot be redrawn

export function sumOf(workers: readonly RunWorker[]): RunWorkerStatus {
  const all = workers.map((worker) => worker.status())
  const sum = (of: 'inFlight' | 'answered' | 'failed' | 'handedBack') => all.reduce((total, one) => total + one[of], 0)
  return {
    inFlight: sum('inFlight'),
    answered: sum('answered'),
    failed: sum('failed'),
    handedBack: sum('handedBack'),
    trouble: all.findLast(({ trouble }) => trouble !== undefined)?.trouble,
  }
}

/** A line that is redrawn on a terminal; elsewhere one every half a minute in which something happened. */
export function workerProgress({
  terminal,
  workers,
  now = () => performance.now(),
}: {
  terminal: Terminal
  workers: readonly RunWorker[]
  now?: () => number
}) {
  let shownAt = now()
  let answeredThen = 0
  let shownLine = ''
  return {
    show: () => {
      const { inFlight, answered, failed, trouble } = sumOf(workers)
      const minutes = (now() - shownAt) / 60_000
      if (!terminal.live && now() - shownAt < linesEveryMs) return
      const line = [
        `${inFlight} on their way`,
        `${formatCount(answered)} answered`,
        `${((answered - answeredThen) / Math.max(minutes, 1e-9)).toFixed(0)} a minute`,
        ...(failed > 0 ? [`${failed} failed`] : []),
        ...(trouble === undefined ? [] : [printable(trouble)]),
      ].join(' · ')
      if (terminal.live) drawStatus(terminal, line)
      else if (line !== shownLine) writeLine(terminal, line)
      shownLine = line
      if (terminal.live) return
      shownAt = now()
      answeredThen = answered
    },
    end: () => clearStatus(terminal),
  }
}
