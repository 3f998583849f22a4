/** How `--help` reads: values as they are typed, commands with what they take, one wording for every command. */

import { type Argument, type Command, Help, type Option } from 'commander'

const plain = new Help()

/** For commander's `configureHelp`, which the commands inherit. */
export const helpStyle: Partial<Help> = {
  showGlobalOptions: true,
  optionDescription: (option: Option) => plain.optionDescription(withTypedDefault(option)),
  argumentDescription: (argument: Argument) => plain.argumentDescription(withTypedDefault(argument)),
  subcommandTerm: (command: Command) => `${command.name()} ${command.usage().replace(/^\[options\] ?/, '')}`,
}

/** A default as it is typed: without quotes, and weights as NAME=NUMBER. */
function withTypedDefault<T extends Option | Argument>(described: T): T {
  const { defaultValue: value } = described
  const typed =
    typeof value === 'object' && value !== null
      ? Object.entries(value)
          .map(([name, weight]) => `${name}=${weight}`)
          .join(',')
      : String(value)
  return Object.assign(Object.create(described), {
    defaultValueDescription: described.defaultValueDescription ?? typed,
  })
}
