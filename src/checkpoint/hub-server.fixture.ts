/** A hub on this machine for tests: it serves one model and does what hubs and networks do on bad days. */

import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const commit = '0123456789abcdef0123456789abcdef01234567'

/** One answer to one request for a file. */
export type Answer = (request: IncomingMessage, response: ServerResponse, content: Buffer) => void

export type HubServer = {
  readonly endpoint: string
  /** What is served, by name; the list that clients get is made of it. */
  readonly files: Map<string, Buffer>
  /** Answers to the next requests for a file, instead of good ones. */
  readonly next: Map<string, Answer[]>
  /** Status of the questions about the model, 200 unless set. */
  status: number
  /** Changes the list of files before it is sent. */
  list: (entries: Record<string, unknown>[]) => unknown
  /** Requests for files: name and range. */
  readonly requests: { readonly file: string; readonly range: string | undefined; readonly token: string | undefined }[]
  readonly close: () => Promise<void>
}

export async function startHub(name: string): Promise<HubServer> {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '', 'http://hub').pathname)
    const token = request.headers.authorization
    if (path.startsWith('/api/')) {
      if (hub.status !== 200) return answerStatus(hub.status)(request, response, Buffer.alloc(0))
      const known = path.startsWith(`/api/models/${name}/`)
      if (!known || /revision\/(?!main|v1|0123)/.test(path))
        return answerStatus(404)(request, response, Buffer.alloc(0))
      const body = path.includes('/tree/') ? hub.list([...hub.files].map(entry)) : { _id: '1', id: name, sha: commit }
      response.setHeader('content-type', 'application/json')
      return response.end(JSON.stringify(body))
    }
    const file = path.slice(`/${name}/resolve/${commit}/`.length)
    hub.requests.push({ file, range: request.headers.range, token })
    const content = hub.files.get(file)
    const answer = hub.next.get(file)?.shift() ?? (content === undefined ? answerStatus(404) : answerWell)
    answer(request, response, content ?? Buffer.alloc(0))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const hub: HubServer = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    files: new Map(),
    next: new Map(),
    status: 200,
    list: (entries) => entries,
    requests: [],
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  return hub
}

/** What is wanted, from where it is wanted. */
export const answerWell: Answer = (request, response, content) => {
  const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  const headers = { 'content-length': content.length - start }
  if (request.headers.range === undefined) response.writeHead(200, headers)
  else
    response.writeHead(206, { ...headers, 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` })
  response.end(content.subarray(start))
}

/** The connection ends after so many bytes. */
export function answerThenDrop(bytes: number): Answer {
  return (request, response, content) => {
    const start = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    response.writeHead(start > 0 ? 206 : 200, {
      'content-length': content.length - start,
      ...(start > 0 && { 'content-range': `bytes ${start}-${content.length - 1}/${content.length}` }),
    })
    response.write(content.subarray(start, start + bytes), () => response.destroy())
  }
}

/** Everything from the beginning, whatever was asked for. */
export const answerWithoutRange: Answer = (_, response, content) => response.writeHead(200).end(content)

/** Some other range than was asked for. */
export const answerWrongRange: Answer = (_, response, content) => {
  response.writeHead(206, { 'content-range': `bytes 1-${content.length - 1}/${content.length}` })
  response.end(content.subarray(1))
}

/** Other bytes: of another length, or changed. */
export function answerWith(change: (content: Buffer) => Buffer): Answer {
  return (_, response, content) => response.writeHead(200).end(change(content))
}

export function answerStatus(status: number, headers: Record<string, string> = {}): Answer {
  return (_, response) => response.writeHead(status, { 'content-type': 'text/plain', ...headers }).end('no')
}

/** Some bytes, then nothing. */
export function answerAndStall(bytes: number): Answer {
  return (_, response, content) => {
    response.writeHead(200, { 'content-length': content.length })
    response.write(content.subarray(0, bytes))
  }
}

/** As the hub lists a file: large ones have a SHA-256, small ones only git's hash. */
function entry([path, content]: [string, Buffer]): Record<string, unknown> {
  const git = createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')
  const oid = createHash('sha256').update(content).digest('hex')
  const lfs = path.endsWith('.safetensors') ? { lfs: { oid, size: content.length, pointerSize: 130 } } : {}
  return { type: 'file', path, size: content.length, oid: git, ...lfs }
}
