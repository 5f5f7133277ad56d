import type { AppEnd, Destination, Outcome, RemoteEnd } from '../../netstack/ports.ts'
import type { Api } from '../cluster/api.ts'
import type { Pod, Store } from '../cluster/store.ts'
import { PortforwardSession, type StreamPair } from './portforward-session.ts'

const graceMs = 25
const absentMs = 3000
const quietMs = 100
const largeBytes = 64 * 1024
const highWater = 1 << 20
const lowWater = 1 << 18
const rememberMs = 60_000
const idleMs = 60_000
const sessionsPerPod = 32

/** What the error stream's text means for an app that still waits. */
export function outcomeOf(text: string): Outcome {
  if (text.startsWith('lost: ')) return 'net-unreachable'
  if (/no route to host|host is unreachable/i.test(text)) return 'host-unreachable'
  return 'refused'
}

/** Direct mode: each flow is a pair of streams to a ready pod (design, decision 3). */
export class DirectDialler {
  readonly #api: Api
  readonly #store: Store
  readonly #log: (line: string) => void
  readonly #sessions = new Map<string, PortforwardSession[]>()
  readonly #answered = new Map<string, number>()
  #sweep: NodeJS.Timeout | undefined

  constructor(api: Api, store: Store, log: (line: string) => void) {
    this.#api = api
    this.#store = store
    this.#log = log
  }

  start(): void {
    this.#sweep = setInterval(() => {
      this.#dropIdle()
    }, 5000).unref()
  }

  stop(): void {
    clearInterval(this.#sweep)
    for (const list of [...this.#sessions.values()])
      for (const session of [...list]) session.close()
  }

  get sessions(): number {
    return [...this.#sessions.values()].reduce((sum, list) => sum + list.length, 0)
  }

  readonly dial = (destination: Destination, app: AppEnd): RemoteEnd => {
    const key = `${String(destination.family)}:${BigInt(`0x${Buffer.from(destination.address).toString('hex')}`).toString(16)}`
    const target = this.#store.target(key, destination.port)
    if (target.kind === 'pod') return this.dialPod(target.pod, target.port, app)
    if (target.kind === 'refused') return later(0, app, 'refused')
    return later(target.kind === 'unknown' ? absentMs : 0, app, 'host-unreachable')
  }

  dialPod(pod: Pod, port: number, app: AppEnd): RemoteEnd {
    const memory = `${pod.uid}:${String(port)}`
    const known = Date.now() - (this.#answered.get(memory) ?? 0) < rememberMs
    const flow = new DirectFlow(app, known, {
      answered: () => this.#answered.set(memory, Date.now()),
      failed: (text) => {
        this.#answered.delete(memory)
        this.#log(`${pod.namespace}/${pod.name}:${String(port)}: ${text}`)
      },
    })
    flow.pair = this.#session(pod).open(port, flow.events)
    if (known)
      queueMicrotask(() => {
        app.accept()
      })
    return flow
  }

  #session(pod: Pod): PortforwardSession {
    const key = `${pod.namespace}/${pod.name}/${pod.uid}`
    const list = this.#sessions.get(key) ?? []
    this.#sessions.set(key, list)
    const free = list.filter((s) => s.free).sort((a, b) => a.flows - b.flows)[0]
    if (free) return free
    const busiest =
      list.length >= sessionsPerPod ? list.sort((a, b) => a.flows - b.flows)[0] : undefined
    if (busiest) return busiest
    const session = new PortforwardSession((error) => {
      list.splice(list.indexOf(session), 1)
      if (list.length === 0) this.#sessions.delete(key)
      this.#log(`session to ${pod.namespace}/${pod.name}: ${error.message}`)
    })
    list.push(session)
    void session.start(this.#api, pod)
    return session
  }

  #dropIdle(): void {
    const now = Date.now()
    for (const list of [...this.#sessions.values()])
      for (const session of [...list])
        if (session.flows === 0 && now - session.idleSince > idleMs) session.close()
  }
}

function later(afterMs: number, app: AppEnd, outcome: Outcome): RemoteEnd {
  const timer = setTimeout(() => {
    app.refuse(outcome)
  }, afterMs)
  const nothing = () => undefined
  return {
    data: nothing,
    end: nothing,
    drained: nothing,
    reset: () => {
      clearTimeout(timer)
    },
  }
}

/** One flow: the application's end on one side, a pair of streams on the other. */
class DirectFlow implements RemoteEnd {
  pair: StreamPair | undefined
  readonly #app: AppEnd
  readonly #told: { answered(): void; failed(text: string): void }
  #accepted: boolean
  #paused = false
  #over = false
  #bytes = 0
  #heardAt = 0
  #finAt = 0
  #grace: NodeJS.Timeout | undefined
  #finTimer: NodeJS.Timeout | undefined
  #appEnded = false
  #podEnded = false

  constructor(app: AppEnd, known: boolean, told: { answered(): void; failed(text: string): void }) {
    this.#app = app
    this.#accepted = known
    this.#told = told
  }

  readonly events = {
    replied: (): void => {
      this.#grace = setTimeout(() => {
        this.#accept()
      }, graceMs)
    },
    data: (bytes: Uint8Array): void => {
      this.#accept()
      this.#told.answered()
      this.#heardAt = Date.now()
      this.#app.write(bytes)
      this.#grow(bytes.length)
      if (!this.#paused && this.#app.queued > highWater) {
        this.#paused = true
        this.pair?.keepToItself()
        this.pair?.pause()
      }
    },
    end: (): void => {
      const sinceFin = Date.now() - this.#finAt
      if (this.#finAt > 0 && sinceFin >= 800 && sinceFin <= 1300) {
        this.#finish()
        this.#app.reset()
        return
      }
      this.#accept()
      this.#podEnded = true
      this.#app.end()
      if (this.#appEnded) this.#sendFin()
    },
    failed: (text: string): void => {
      if (this.#over) return
      this.#over = true
      this.#clear()
      this.#told.failed(text)
      if (this.#accepted) this.#app.reset()
      else this.#app.refuse(outcomeOf(text))
    },
  }

  data(bytes: Uint8Array): void {
    if (this.#over) return
    const { length } = bytes
    this.#grow(length)
    this.pair?.write(bytes.slice(), () => {
      this.#app.consumed(length)
    })
  }

  /** The runtime ends the connection a second after our FIN, so it waits until the pod has been quiet for a moment. */
  end(): void {
    this.#appEnded = true
    if (this.#podEnded) {
      this.#sendFin()
      return
    }
    const check = () => {
      if (this.#over || this.#finAt > 0) return
      if (Date.now() - this.#heardAt >= quietMs) this.#sendFin()
      else this.#finTimer = setTimeout(check, quietMs)
    }
    check()
  }

  reset(): void {
    this.#finish()
  }

  drained(): void {
    if (!this.#paused || this.#app.queued > lowWater) return
    this.#paused = false
    this.pair?.resume()
  }

  #accept(): void {
    if (this.#accepted || this.#over) return
    this.#accepted = true
    clearTimeout(this.#grace)
    this.#told.answered()
    this.#app.accept()
  }

  #grow(count: number): void {
    this.#bytes += count
    if (this.#bytes > largeBytes) this.pair?.keepToItself()
  }

  #sendFin(): void {
    if (this.#over || this.#finAt > 0) return
    this.#finAt = Date.now()
    this.pair?.end()
    if (this.#podEnded)
      setTimeout(() => {
        this.#finish()
      }, 50).unref()
  }

  #finish(): void {
    if (this.#over) return
    this.#over = true
    this.#clear()
    this.pair?.reset()
  }

  #clear(): void {
    clearTimeout(this.#grace)
    clearTimeout(this.#finTimer)
    if (this.#paused) this.pair?.resume()
    this.#paused = false
  }
}
