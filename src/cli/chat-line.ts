/** What a line typed in a chat means. */

export type ChatLine =
  | { readonly kind: 'empty' | 'clear' | 'help' | 'quit' }
  | { readonly kind: 'question'; readonly text: string }
  | { readonly kind: 'image'; readonly path: string }
  | { readonly kind: 'unknown'; readonly name: string }

/** Reads one line. A path may be quoted, as it is when a file is dropped on a terminal. */
export function readChatLine(line: string): ChatLine {
  const text = line.trim()
  if (text === '') return { kind: 'empty' }
  if (!text.startsWith('/')) return { kind: 'question', text }
  const [, name = '', rest = ''] = /^(\S+)\s*(.*)$/s.exec(text) ?? []
  switch (name) {
    case '/image':
      return { kind: 'image', path: unquote(rest) }
    case '/clear':
    case '/help':
    case '/quit':
      return { kind: name.slice(1) as 'clear' | 'help' | 'quit' }
    case '/exit':
      return { kind: 'quit' }
    default:
      return { kind: 'unknown', name }
  }
}

function unquote(path: string): string {
  const [, inside] = /^(?:'(.*)'|"(.*)")$/.exec(path)?.filter((part) => part !== undefined) ?? []
  return inside ?? path.replace(/\\ /g, ' ')
}
