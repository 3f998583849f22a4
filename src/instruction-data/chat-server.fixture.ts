/** A server of chat completions for tests, on this machine: it counts what it is asked, and misbehaves on command. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What the server does with a request. */
export type Behaviour =
  | { readonly do: 'answer'; readonly text?: string; readonly afterMs?: number; readonly finish?: string }
  | {
      readonly do: 'status'
      readonly status: number
      readonly headers?: Record<string, string>
      readonly code?: string
      readonly message?: string
    }
  | { readonly do: 'hang' } // takes the request and says nothing
  | { readonly do: 'hang-in-body' } // begins an answer and never ends it
  | { readonly do: 'cut' } // begins an answer and closes the connection
  | { readonly do: 'refuse-connection' } // closes the connection at once
  | { readonly do: 'body'; readonly body: string; readonly type?: string } // answers with this text
  | { readonly do: 'choices'; readonly count: number }

export type ReceivedRequest = {
  readonly key: string | undefined
  readonly body: Record<string, unknown>
  readonly at: number
}

export type ChatServer = {
  readonly baseURL: string
  readonly requests: ReceivedRequest[]
  /** Keys of requests whose answer left completely. */
  readonly answered: string[]
  readonly close: () => Promise<void>
}

export const answerOf = 'Question:\nWhat is the man doing?\n===\nAnswer:\nHe is riding a horse along the beach.'

/** Starts a server; `behave` decides by the request and by how often its key came before. */
export async function startChatServer(
  behave: (request: ReceivedRequest, times: number) => Behaviour,
): Promise<ChatServer> {
  const requests: ReceivedRequest[] = []
  const answered: string[] = []
  const server = createServer(async (incoming, response) => {
    const request = await readRequest(incoming)
    const times = requests.filter(({ key }) => key === request.key).length
    requests.push(request)
    respond(behave(request, times), response, () => answered.push(request.key ?? ''))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    baseURL: `http://127.0.0.1:${port}/v1`,
    requests,
    answered,
    close: () => {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(() => resolve()))
    },
  }
}

async function readRequest(incoming: IncomingMessage): Promise<ReceivedRequest> {
  const pieces: Buffer[] = []
  for await (const piece of incoming) pieces.push(piece)
  const text = Buffer.concat(pieces).toString('utf8')
  return {
    key: incoming.headers['idempotency-key']?.toString(),
    body: text === '' ? {} : JSON.parse(text),
    at: Date.now(),
  }
}

function respond(behaviour: Behaviour, response: ServerResponse, done: () => void): void {
  const json = { 'content-type': 'application/json' }
  switch (behaviour.do) {
    case 'answer': {
      const { text = answerOf, finish = 'stop', afterMs = 0 } = behaviour
      setTimeout(() => {
        response
          .on('finish', done)
          .writeHead(200, json)
          .end(completion([text], finish))
      }, afterMs)
      break
    }
    case 'status': {
      const { status, headers = {}, code = null, message = 'something went wrong' } = behaviour
      response
        .writeHead(status, { ...json, ...headers })
        .end(JSON.stringify({ error: { message, type: 'error', param: null, code } }))
      break
    }
    case 'hang':
      break
    case 'hang-in-body':
      response.writeHead(200, json).write('{"id": "x", "choices": [')
      break
    case 'cut':
      response
        .writeHead(200, { ...json, 'content-length': '1000' })
        .write('{"id": "x", "choices": [', () => response.destroy())
      break
    case 'refuse-connection':
      response.destroy()
      break
    case 'body':
      response.writeHead(200, { 'content-type': behaviour.type ?? 'application/json' }).end(behaviour.body)
      break
    case 'choices':
      response.writeHead(200, json).end(completion(Array(behaviour.count).fill(answerOf), 'stop'))
      break
  }
}

function completion(texts: readonly string[], finish: string): string {
  const choices = texts.map((content, index) => ({
    index,
    message: { role: 'assistant', content },
    finish_reason: finish,
  }))
  const usage = { prompt_tokens: 1000, completion_tokens: 100, total_tokens: 1100 }
  return JSON.stringify({ id: 'chatcmpl-1', object: 'chat.completion', created: 1, model: 'teacher-1', choices, usage })
}
