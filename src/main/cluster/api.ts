import { readFileSync } from 'node:fs'
import type { IncomingMessage } from 'node:http'
import https, { type RequestOptions } from 'node:https'
import { KubeConfig } from '@kubernetes/client-node'
import { AppError } from '../../shared/problem.ts'

const answerMs = 10_000

/** The API server, with the kubeconfig's identity. The only import of @kubernetes/client-node. */
export class Api {
  readonly server: string
  readonly context: string
  readonly namespace: string
  readonly #config: KubeConfig

  /** @throws AppError `kubeconfig` if it cannot be read, or lacks the context or its cluster */
  constructor(context: string | undefined) {
    this.#config = new KubeConfig()
    try {
      this.#config.loadFromDefault()
      if (context !== undefined) this.#config.setCurrentContext(context)
    } catch (error) {
      throw new AppError({ code: 'kubeconfig', detail: messageOf(error) }, { cause: error })
    }
    this.context = this.#config.getCurrentContext()
    const cluster = this.#config.getCurrentCluster()
    const known = this.#config.getContextObject(this.context)
    if (!cluster || !known)
      throw new AppError({ code: 'kubeconfig', detail: `there is no context “${this.context}”` })
    this.server = cluster.server
    this.namespace = known.namespace ?? 'default'
  }

  /** Options for https and WebSocket requests: TLS, credentials, proxy. Read anew, since tokens rotate. */
  async options(): Promise<RequestOptions> {
    const options: RequestOptions = {}
    await this.#config.applyToHTTPSOptions(options)
    return options
  }

  /** GETs or POSTs JSON. @throws AppError `unreachable`, `unauthorised`, `forbidden` */
  async call(path: string, body?: unknown): Promise<unknown> {
    const response = await this.#request(path, body, AbortSignal.timeout(answerMs))
    const chunks: Buffer[] = []
    for await (const chunk of response) chunks.push(chunk as Buffer)
    return JSON.parse(Buffer.concat(chunks).toString())
  }

  /** Streams a watch's events until it ends, which it does every few minutes. */
  async *watch(path: string, signal: AbortSignal): AsyncGenerator<WatchEvent> {
    const response = await this.#request(path, undefined, signal)
    let rest = ''
    response.setEncoding('utf8')
    for await (const chunk of response) {
      const lines = (rest + (chunk as string)).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) if (line !== '') yield JSON.parse(line) as WatchEvent
    }
  }

  async #request(path: string, body: unknown, signal: AbortSignal): Promise<IncomingMessage> {
    const options = await this.options()
    const base = this.server.replace(/\/$/, '')
    let answered = false
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const request = https.request(
        `${base}${path}`,
        {
          ...options,
          method: body === undefined ? 'GET' : 'POST',
          headers: {
            ...options.headers,
            accept: 'application/json',
            ...(body === undefined ? {} : { 'content-type': 'application/json' }),
          },
          signal,
        },
        (incoming) => {
          answered = true
          resolve(incoming)
        },
      )
      request.setTimeout(answerMs, () => {
        if (!answered) request.destroy(new Error(`no answer in ${String(answerMs / 1000)} s`))
      })
      request.on('error', reject)
      request.on('socket', (socket) => socket.setKeepAlive(true, 10_000))
      request.end(body === undefined ? undefined : JSON.stringify(body))
    }).catch((error: unknown) => {
      throw new AppError(
        { code: 'unreachable', server: this.server, detail: messageOf(error) },
        { cause: error },
      )
    })
    const status = response.statusCode ?? 0
    if (status < 300) return response
    response.resume()
    if (status === 401)
      throw new AppError({ code: 'unauthorised', server: this.server, detail: 'HTTP 401' })
    if (status === 403) throw new AppError({ code: 'forbidden', missing: [`GET ${path}`] })
    throw new AppError({
      code: 'unreachable',
      server: this.server,
      detail: `HTTP ${String(status)} for ${path}`,
    })
  }
}

export interface WatchEvent {
  type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR'
  object: KubeObject
}

/** What is used of any object. */
export interface KubeObject {
  metadata: {
    name?: string
    namespace?: string
    uid?: string
    resourceVersion?: string
    labels?: Record<string, string>
  }
  spec?: Record<string, unknown>
  status?: Record<string, unknown>
  [key: string]: unknown
}

/** The nameservers of a resolv.conf. @see resolv.conf(5) */
export function nameservers(path = '/etc/resolv.conf'): readonly string[] {
  const text = readFileSync(path, 'utf8')
  return [...text.matchAll(/^\s*nameserver\s+([0-9a-fA-F.:]+)/gm)].map((m) => m[1] ?? '')
}

function messageOf(error: unknown): string {
  if (error instanceof AggregateError) return error.errors.map(messageOf).join(', ')
  return error instanceof Error ? error.message : String(error)
}
