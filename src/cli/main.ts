#!/usr/bin/env node
/** The command `llava`. */

import { runProgram } from './program.ts'

// Not process.exit: what is still to be written to a pipe would be lost.
process.exitCode = await runProgram(process.argv.slice(2))
