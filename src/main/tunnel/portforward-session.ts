import WebSocket from 'ws'
import {
  dataHeader,
  FLAG_FIN,
  ping,
  PING,
  RST_STREAM,
  GOAWAY,
  rstStream,
  SpdyParser,
  SYN_REPLY,
  synStream,
} from '../../wire/spdy.ts'
import type { Api } from '../cluster/api.ts'

const protocol = 'SPDY/3.1+portforward.k8s.io'
const pingMs = 10_000

/** What a pair of streams tells its flow. */
export interface StreamEvents {
  replied(): void
  data(bytes: Uint8Array): void
  end(): void
  /** The pod's runtime reports an error, or the session is lost; nothing follows. */
  failed(text: string): void
}

export interface StreamPair {
  /** `sent` is called when the bytes have left this process. The array must not change before. */
  write(bytes: Uint8Array, sent: () => void): void
  end(): void
  reset(): void
  pause(): void
  resume(): void
  /** From now on no other flow is placed on this session. */
  keepToItself(): void
}

/** One WebSocket to a pod's port-forward, carrying a SPDY/3.1 session (KEP-4006). */
export class PortforwardSession {
  readonly #streams = new Map<number, StreamEvents>()
  readonly #errors = new Map<number, { data: number; text: string }>()
  readonly #waiting: (() => void)[] = []
  readonly #closed: (error: Error) => void
  #socket: WebSocket | undefined
  #next = 1
  #first = true
  #exclusive = 0
  #pingTimer: NodeJS.Timeout | undefined
  #heardAt = Date.now()
  idleSince = Date.now()
  state: 'opening' | 'open' | 'closed' = 'opening'

  constructor(closed: (error: Error) => void) {
    this.#closed = closed
  }

  get free(): boolean {
    return this.state !== 'closed' && this.#exclusive === 0
  }

  get flows(): number {
    return this.#streams.size
  }

  async start(api: Api, pod: { namespace: string; name: string }): Promise<void> {
    try {
      const { headers, agent, ...tls } = await api.options()
      if (this.state === 'closed') return
      const base = api.server.replace(/\/$/, '').replace(/^http/, 'ws')
      const socket = new WebSocket(
        `${base}/api/v1/namespaces/${pod.namespace}/pods/${pod.name}/portforward`,
        {
          ...(tls as object),
          ...(agent === undefined || typeof agent === 'boolean' ? {} : { agent }),
          headers: { ...(headers as Record<string, string>), 'Sec-WebSocket-Protocol': protocol },
          perMessageDeflate: false,
          skipUTF8Validation: true,
          handshakeTimeout: 10_000,
          // Masking guards plain-text proxies (RFC 6455 §10.3); under TLS it only costs a pass over each byte.
          ...(base.startsWith('wss:') ? { generateMask: (mask: Buffer) => mask.fill(0) } : {}),
        },
      )
      this.#socket = socket
      this.#listen(socket)
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)))
    }
  }

  /** Opens a pair of streams to a port of the pod; before the session is open, it waits. */
  open(port: number, events: StreamEvents): StreamPair {
    let data = 0
    let over = false
    let alone = false
    const whenOpen = (act: () => void) => {
      if (this.state === 'open') act()
      else if (this.state === 'opening') this.#waiting.push(act)
    }
    const done = () => {
      over = true
      if (alone) this.#exclusive--
      alone = false
      this.idleSince = Date.now()
    }
    const own: StreamEvents = {
      replied: () => events.replied(),
      data: (bytes) => events.data(bytes),
      end: () => events.end(),
      failed: (text) => {
        done()
        events.failed(text)
      },
    }
    const placeholder = -++this.#placeholders
    this.#streams.set(placeholder, own)
    whenOpen(() => {
      this.#streams.delete(placeholder)
      if (over) return
      const error = this.#next
      data = error + 2
      this.#next += 4
      this.#streams.set(data, own)
      this.#errors.set(error, { data, text: '' })
      const headers = { port: String(port), requestid: String(error) }
      this.#send(synStream(error, FLAG_FIN, { streamtype: 'error', ...headers }, this.#first))
      this.#first = false
      this.#send(synStream(data, 0, { streamtype: 'data', ...headers }, false))
    })
    return {
      write: (bytes, sent) => {
        whenOpen(() => {
          if (over) return
          this.#send(dataHeader(data, bytes.length))
          this.#socket?.send(bytes, { binary: true }, () => {
            sent()
          })
        })
      },
      end: () => {
        whenOpen(() => {
          if (!over) this.#send(dataHeader(data, 0, FLAG_FIN))
        })
      },
      reset: () => {
        if (over) return
        done()
        this.#streams.delete(placeholder)
        if (data === 0 || this.state !== 'open') return
        this.#streams.delete(data)
        this.#errors.delete(data - 2)
        this.#send(rstStream(data))
        this.#send(rstStream(data - 2))
      },
      pause: () => this.#socket?.pause(),
      resume: () => this.#socket?.resume(),
      keepToItself: () => {
        if (alone || over) return
        alone = true
        this.#exclusive++
      },
    }
  }
  #placeholders = 0

  close(): void {
    this.#fail(new Error('closed'))
  }

  #listen(socket: WebSocket): void {
    const parser = new SpdyParser({
      control: (type, stream, body) => {
        this.#control(type, stream, body)
      },
      data: (stream, bytes, fin) => {
        this.#data(stream, bytes, fin)
      },
    })
    socket.on('upgrade', (response) => {
      if (response.headers['sec-websocket-protocol'] === protocol)
        delete response.headers['sec-websocket-protocol']
      socket.once('open', () => response.socket.setNoDelay(true))
    })
    socket.on('open', () => {
      this.state = 'open'
      this.#heardAt = Date.now()
      this.#pingTimer = setInterval(() => {
        if (Date.now() - this.#heardAt > 2.5 * pingMs && !socket.isPaused)
          this.#fail(new Error('the link is silent'))
        else this.#send(ping(1))
      }, pingMs).unref()
      for (const act of this.#waiting.splice(0)) act()
    })
    socket.on('message', (message: Buffer) => {
      this.#heardAt = Date.now()
      try {
        parser.push(message)
      } catch (error) {
        this.#fail(error instanceof Error ? error : new Error(String(error)))
      }
    })
    socket.on('error', (error) => {
      this.#fail(error)
    })
    socket.on('close', () => {
      this.#fail(new Error('the connection to the API server has ended'))
    })
  }

  #control(type: number, stream: number, body: Uint8Array): void {
    if (type === SYN_REPLY) this.#streams.get(stream)?.replied()
    else if (type === RST_STREAM) this.#failed(stream, 'reset')
    else if (type === PING && ((body[3] ?? 0) & 1) === 0)
      this.#send(new Uint8Array([0x80, 3, 0, 6, 0, 0, 0, 4, ...body]))
    else if (type === GOAWAY) this.#fail(new Error('the session was ended by the pod’s runtime'))
  }

  #data(stream: number, bytes: Uint8Array, fin: boolean): void {
    const error = this.#errors.get(stream)
    if (error) {
      error.text += Buffer.from(bytes).toString()
      if (!fin) return
      this.#errors.delete(stream)
      if (error.text !== '') this.#failed(error.data, error.text)
      return
    }
    const events = this.#streams.get(stream)
    if (!events) return
    if (bytes.length > 0) events.data(bytes)
    if (fin) events.end()
  }

  #failed(stream: number, text: string): void {
    const events = this.#streams.get(stream)
    this.#streams.delete(stream)
    this.#errors.delete(stream - 2)
    events?.failed(text)
  }

  #send(bytes: Uint8Array): void {
    if (this.state === 'open') this.#socket?.send(bytes)
  }

  #fail(error: Error): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    clearInterval(this.#pingTimer)
    this.#socket?.terminate()
    const streams = [...this.#streams.values()]
    this.#streams.clear()
    for (const events of streams) events.failed(`lost: ${error.message}`)
    this.#closed(error)
  }
}
