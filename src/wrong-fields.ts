/**
 * What is wrong with a file that somebody else wrote, field by field: what was found, and what was expected.
 *
 * Every room reads such files, so this stands above the rooms and knows none of them.
 */

import type { z } from 'zod'

export type WrongField = { readonly text: string; readonly kind: 'missing' | 'type' | 'range' }

type Issue = z.core.$ZodIssue

/** Nobody reads more of them. */
const mostTold = 8

/** One clause for each wrong field of the parsed `value` that `error` is about; `section` comes before the names of the fields. */
export function wrongFields(error: z.ZodError, { value, section }: { value: unknown; section?: string }): WrongField[] {
  const before = section === undefined || section === '' ? [] : [section]
  return error.issues.flatMap((issue) => describe(issue, { value, before }))
}

/** The same as one text, to stand after a colon. */
export function tellWrongFields(error: z.ZodError, value: unknown): string {
  const texts = wrongFields(error, { value }).map(({ text }) => text)
  const left = texts.length - mostTold
  return [...texts.slice(0, mostTold), ...(left > 0 ? [`and ${left} more`] : [])].join('; ')
}

/** A parsed value in an error's sentence, cut where it is long. */
export function show(value: unknown): string {
  const text = stringify(value) ?? 'missing'
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

function stringify(value: unknown): string | undefined {
  try {
    return JSON.stringify(value)
  } catch {
    return 'too deep to show'
  }
}

function describe(issue: Issue, { value, before }: { value: unknown; before: readonly PropertyKey[] }): WrongField[] {
  const path = [...before, ...issue.path].map(String)
  const found = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value)
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => ({ text: `${[...path, key].join('.')} is no known key`, kind: 'range' }))
  }
  if (issue.code === 'invalid_union' && !isExplained(issue)) {
    const meant = branchMeant(issue.errors)
    if (meant !== undefined) return meant.flatMap((inner) => describe(inner, { value: found, before: path }))
  }
  const what = found === undefined ? 'missing' : issue.code === 'invalid_key' ? 'no known key' : show(found)
  return [
    {
      text: `${path.join('.') || 'it'} is ${what}, expected ${expectation(issue)}`,
      kind: found === undefined ? 'missing' : issue.code === 'invalid_type' ? 'type' : 'range',
    },
  ]
}

/** Of several forms that a field may have, the one that it was meant to have; `undefined` where it resembles none. */
function branchMeant(branches: readonly Issue[][]): Issue[] | undefined {
  if (
    branches.every(([first]) => first === undefined || (first.path.length === 0 && first.code !== 'unrecognized_keys'))
  )
    return undefined
  // Another kind of value is further from what was meant than a wrong or missing key.
  const distance = (issues: readonly Issue[]) =>
    issues.reduce((sum, { path, code }) => sum + (path.length > 0 || code === 'unrecognized_keys' ? 1 : 10), 0)
  return [...branches].sort((one, other) => distance(one) - distance(other))[0]
}

/** Whether the schema itself says what was expected. */
function isExplained({ message }: Issue): boolean {
  return message !== 'Invalid input'
}

function expectation(issue: Issue): string {
  switch (issue.code) {
    case 'invalid_type':
      return kindNames[issue.expected] ?? `a ${issue.expected}`
    case 'invalid_value':
      return issue.values.map((value) => JSON.stringify(value)).join(' or ')
    case 'too_small':
      return `${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}${unitOf(issue.origin, issue.minimum)}`
    case 'too_big':
      return `${issue.inclusive ? 'at most' : 'less than'} ${issue.maximum}${unitOf(issue.origin, issue.maximum)}`
    case 'invalid_union':
      if ('options' in issue && issue.options !== undefined) return eachOnce(issue.options.map(show))
      if (isExplained(issue)) return issue.message
      return eachOnce(issue.errors.flatMap(([first]) => (first === undefined ? [] : [expectation(first)])))
    case 'invalid_key':
      return eachOnce(issue.issues.map(expectation))
    default:
      return issue.message
  }
}

const kindNames: Readonly<Record<string, string>> = {
  int: 'an integer',
  array: 'a list',
  tuple: 'a list',
  object: 'an object',
  record: 'an object',
  never: 'nothing',
}

function unitOf(origin: string, count: number | bigint): string {
  const units = { array: [' entry', ' entries'], string: [' character', ' characters'] }[origin] ?? ['', '']
  return units[count === 1 ? 0 : 1] ?? ''
}

function eachOnce(texts: readonly string[]): string {
  return [...new Set(texts)].join(' or ')
}
