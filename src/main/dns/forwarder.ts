import { createSocket, type Socket } from 'node:dgram'
import { createServer, createConnection, type Server } from 'node:net'
import { routeOf, type DnsConfig } from '../../shared/dns-policy.ts'
import { parseAddress } from '../../shared/subnet.ts'
import {
  A,
  AAAA,
  CNAME,
  encodeAnswer,
  NOERROR,
  NXDOMAIN,
  parseQuestion,
  PTR,
  SERVFAIL,
  SRV,
  type Answer,
  type Question,
} from '../../wire/dns.ts'
import { canonical, type Service, type Store } from '../cluster/store.ts'

const upstreamMs = 4000

export interface ForwarderOptions {
  readonly store: Store
  config(): DnsConfig
  /** The host's own nameservers; empty where the system splits names for us. */
  readonly upstream: readonly string[]
}

type Found = { rcode: number; answers: readonly Answer[] }

/** Answers cluster names from the watch, relays the rest byte for byte. UDP and TCP on one port of 127.0.0.1. */
export class Forwarder {
  port = 0
  queries = 0
  /** Names that proved, through the system's resolver, that queries arrive here. */
  readonly nonces = new Set<string>()
  readonly #options: ForwarderOptions
  #udp: Socket | undefined
  #tcp: Server | undefined
  readonly #relay = new Set<Socket>()

  constructor(options: ForwarderOptions) {
    this.#options = options
  }

  async start(): Promise<void> {
    const tcp = createServer((socket) => {
      let buffered = Buffer.alloc(0)
      socket.setTimeout(10_000, () => socket.destroy())
      socket.on('error', () => socket.destroy())
      socket.on('data', (chunk) => {
        buffered = Buffer.concat([buffered, chunk])
        while (buffered.length >= 2 && buffered.length >= 2 + buffered.readUInt16BE(0)) {
          const end = 2 + buffered.readUInt16BE(0)
          const message = buffered.subarray(2, end)
          buffered = buffered.subarray(end)
          this.#handle(message, true, (answer) => {
            const length = Buffer.alloc(2)
            length.writeUInt16BE(answer.length)
            socket.write(Buffer.concat([length, answer]))
          })
        }
      })
    })
    await new Promise<void>((resolve, reject) =>
      tcp.once('error', reject).listen(0, '127.0.0.1', resolve),
    )
    const address = tcp.address()
    this.port = typeof address === 'object' && address ? address.port : 0
    const udp = createSocket({ type: 'udp4', reuseAddr: true })
    udp.on('message', (message, peer) => {
      this.#handle(message, false, (answer) => {
        udp.send(answer, peer.port, peer.address)
      })
    })
    await new Promise<void>((resolve, reject) =>
      udp.once('error', reject).bind(this.port, '127.0.0.1', resolve),
    )
    this.#tcp = tcp
    this.#udp = udp
  }

  stop(): void {
    this.#tcp?.close()
    this.#udp?.close()
    for (const socket of this.#relay) socket.close()
    this.#relay.clear()
  }

  #handle(message: Uint8Array, tcp: boolean, reply: (answer: Uint8Array) => void): void {
    this.queries++
    const question = parseQuestion(message)
    if (!question) return
    const found = this.#answer(question)
    if (found === 'upstream') this.#forward(message, question, tcp, reply)
    else
      reply(
        encodeAnswer(
          message,
          question,
          found.rcode,
          found.answers,
          tcp ? 65_535 : Math.min(1232, question.payload ?? 512),
        ),
      )
  }

  #answer(question: Question): Found | 'upstream' {
    const name = question.name.toLowerCase()
    if (this.nonces.has(name))
      return {
        rcode: NOERROR,
        answers: question.type === A ? [{ type: A, address: Uint8Array.of(127, 0, 0, 1) }] : [],
      }
    const pointer = question.type === PTR ? this.#pointer(name) : undefined
    if (pointer) return pointer
    const route = routeOf(name, this.#options.config())
    if (route.kind === 'upstream') return 'upstream'
    for (const candidate of route.candidates) {
      const found = this.#lookup(candidate, question.type)
      if (found) return found
    }
    return route.elseUpstream ? 'upstream' : { rcode: NXDOMAIN, answers: [] }
  }

  /** @returns undefined if the name does not exist */
  #lookup(absolute: string, type: number): Found | undefined {
    const { zone, mapped } = this.#options.config()
    if (!absolute.endsWith(`.svc.${zone}`)) return undefined
    const labels = absolute.slice(0, -`.svc.${zone}`.length).split('.')
    const namespace = labels.pop() ?? ''
    const service = this.#options.store.services.get(`${namespace}/${labels.pop() ?? ''}`)
    if (!service || !mapped.has(namespace)) return undefined
    const own = `${service.name}.${namespace}.svc.${zone}`
    if (labels.length === 0) return this.#service(service, type, own)
    const [first = '', second = ''] = labels
    if (labels.length === 2 && first.startsWith('_') && second.startsWith('_')) {
      const ports = service.ports.filter(
        (p) => `_${p.name}` === first && `_${p.protocol.toLowerCase()}` === second,
      )
      if (ports.length === 0) return undefined
      return {
        rcode: NOERROR,
        answers: type === SRV ? ports.map((p) => ({ type: SRV, port: p.port, target: own })) : [],
      }
    }
    if (labels.length > 1 || service.clusterIPs.length > 0) return undefined
    const hosts = this.#options.store
      .endpoints(service)
      .filter((e) => e.ready && (e.hostname === first || e.address.replace(/[.:]/g, '-') === first))
    return hosts.length === 0
      ? undefined
      : {
          rcode: NOERROR,
          answers: addresses(
            hosts.map((h) => h.address),
            type,
          ),
        }
  }

  #service(service: Service, type: number, own: string): Found {
    if (service.externalName !== undefined)
      return {
        rcode: NOERROR,
        answers:
          type === A || type === AAAA || type === CNAME
            ? [{ type: CNAME, name: service.externalName }]
            : [],
      }
    if (type === SRV)
      return {
        rcode: NOERROR,
        answers: service.ports.map((p) => ({ type: SRV, port: p.port, target: own })),
      }
    const headless = service.clusterIPs.length === 0
    const ips = headless
      ? this.#options.store
          .endpoints(service)
          .filter((e) => e.ready)
          .map((e) => e.address)
      : service.clusterIPs
    return ips.length === 0
      ? { rcode: NXDOMAIN, answers: [] }
      : { rcode: NOERROR, answers: addresses(ips, type) }
  }

  #pointer(name: string): Found | undefined {
    const octets = /^(\d+)\.(\d+)\.(\d+)\.(\d+)\.in-addr\.arpa$/.exec(name)
    if (!octets) return undefined
    const address = canonical(octets.slice(1).reverse().join('.'))
    const service = this.#options.store.serviceAt(address)
    if (!service) return undefined
    return {
      rcode: NOERROR,
      answers: [
        {
          type: PTR,
          name: `${service.name}.${service.namespace}.svc.${this.#options.config().zone}`,
        },
      ],
    }
  }

  #forward(
    message: Uint8Array,
    question: Question,
    tcp: boolean,
    reply: (answer: Uint8Array) => void,
  ): void {
    const [server] = this.#options.upstream
    const give = (rcode: number) => {
      reply(encodeAnswer(message, question, rcode, [], 65_535))
    }
    if (server === undefined) {
      give(NXDOMAIN)
      return
    }
    if (tcp)
      this.#forwardTcp(server, message, reply, () => {
        give(SERVFAIL)
      })
    else
      this.#forwardUdp(server, message, reply, () => {
        give(SERVFAIL)
      })
  }

  /** From our own port, which the redirect lets pass. */
  #forwardUdp(
    server: string,
    message: Uint8Array,
    reply: (answer: Uint8Array) => void,
    failed: () => void,
  ): void {
    const socket = createSocket({ type: server.includes(':') ? 'udp6' : 'udp4', reuseAddr: true })
    this.#relay.add(socket)
    const finish = (act: () => void) => {
      clearTimeout(timer)
      if (!this.#relay.delete(socket)) return
      socket.close()
      act()
    }
    const timer = setTimeout(() => {
      finish(failed)
    }, upstreamMs)
    socket.on('error', () => {
      finish(failed)
    })
    socket.on('message', (answer) => {
      if (answer.length >= 12 && answer[0] === message[0] && answer[1] === message[1])
        finish(() => {
          reply(answer)
        })
    })
    socket.bind({ port: 61_440 + (this.queries % 512) }, () => {
      socket.send(message, 53, server)
    })
  }

  #forwardTcp(
    server: string,
    message: Uint8Array,
    reply: (answer: Uint8Array) => void,
    failed: () => void,
  ): void {
    const socket = createConnection({
      host: server,
      port: 53,
      localPort: 61_440 + (this.queries % 512),
      timeout: upstreamMs,
    })
    let got = Buffer.alloc(0)
    const length = Buffer.alloc(2)
    length.writeUInt16BE(message.length)
    socket.end(Buffer.concat([length, message]))
    socket.on('data', (chunk) => (got = Buffer.concat([got, chunk])))
    socket.on('timeout', () => socket.destroy(new Error('timeout')))
    socket.on('error', failed)
    socket.on('end', () => {
      if (got.length > 2) reply(got.subarray(2))
      else failed()
    })
  }
}

function addresses(ips: readonly string[], type: number): readonly Answer[] {
  if (type !== A && type !== AAAA) return []
  const family = type === A ? 4 : 6
  return ips.flatMap((ip) => {
    const parsed = parseAddress(ip)
    if (parsed?.family !== family) return []
    const bytes = Buffer.from(parsed.value.toString(16).padStart(family === 4 ? 8 : 32, '0'), 'hex')
    return [{ type, address: bytes }]
  })
}
