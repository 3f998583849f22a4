/** What every command is given: where it prints, what may interrupt it, the options of the whole program. */

import type { Watch } from './interruption.ts'
import type { Terminal } from './terminal.ts'

export type CommandContext = {
  readonly stdout: Terminal
  readonly stderr: Terminal
  readonly watch: Watch
}
