import {
  emptyHeader,
  ICMP,
  ICMP6,
  parseHeader,
  read16,
  read32,
  TCP,
  UDP,
  write16,
  write32,
  writeHeader,
} from '../wire/ip.ts'
import { FlowTable } from './flow-table.ts'
import type { NetstackOptions, Outcome } from './ports.ts'
import { TcpFlow, type FlowHost } from './tcp-flow.ts'

const maxHeld = 1024
const maxFlows = 16_384
const icmpPerSecond = 100

const unreachable: Record<Exclude<Outcome, 'refused'> | 'port', { v4: number; v6: number }> = {
  'net-unreachable': { v4: 0, v6: 0 },
  'host-unreachable': { v4: 1, v6: 3 },
  prohibited: { v4: 13, v6: 1 },
  port: { v4: 3, v6: 4 },
}

/** The endpoint behind the TUN device: packets in, packets out; no clock, no I/O of its own. */
export class Netstack {
  /** Every drop, under a name that says why. */
  readonly counters = new Map<string, number>()
  readonly #options: NetstackOptions
  readonly #flows = new FlowTable<TcpFlow>()
  readonly #due = new Set<TcpFlow>()
  readonly #acks = new Set<TcpFlow>()
  readonly #header = emptyHeader()
  readonly #host: FlowHost
  readonly #out: Uint8Array
  #held = 0
  #icmpSecond = 0
  #icmpCount = 0

  constructor(options: NetstackOptions) {
    this.#options = options
    this.#out = new Uint8Array(new ArrayBuffer(65_540), 0, 65_540)
    this.#host = {
      mtu: options.mtu,
      out: this.#out,
      now: () => options.now(),
      random: () => options.random(),
      send: (length) => {
        options.write(this.#out.subarray(0, length))
      },
      refuse: (flow, outcome) => {
        if (flow.syn && outcome !== 'refused') this.#icmpError(flow.syn, flow.syn.length, outcome)
      },
      schedule: (flow) => this.#due.add(flow),
      forget: (flow) => {
        if (this.#flows.get(...flow.keys) === flow) this.#flows.delete(...flow.keys)
        this.#due.delete(flow)
      },
    }
  }

  get flows(): number {
    return this.#flows.size
  }

  /** Takes one packet. Never throws for what it holds. */
  receive(packet: Uint8Array, length: number): void {
    const header = this.#header
    const malformed = parseHeader(packet, length, header)
    if (malformed) {
      this.#count(`drop-${malformed}`)
    } else if (header.protocol === TCP) {
      this.#tcp(packet)
    } else if (header.protocol === UDP) {
      if (this.#multicast(packet)) this.#count('drop-multicast')
      else {
        this.#count('udp-refused')
        this.#icmpError(packet, header.end, 'port')
      }
    } else if (header.protocol === ICMP || header.protocol === ICMP6) {
      const echo = packet[header.payload] === (header.protocol === ICMP ? 8 : 128)
      this.#count(echo ? 'echo-unanswered' : 'drop-icmp')
    } else this.#count('drop-protocol')
  }

  /** Sends what the batch of packets just received has made due: one ACK a flow. */
  flush(): void {
    for (const flow of this.#acks) if (flow.ackDue) flow.acknowledge()
    this.#acks.clear()
  }

  /** Runs due timers. @returns true while any flow waits for one; call it about every 50 ms then */
  tick(): boolean {
    const now = this.#options.now()
    for (const flow of this.#due) {
      if (flow.dueAt <= now) flow.tick(now)
      if (flow.dueAt === Infinity) this.#due.delete(flow)
    }
    return this.#due.size > 0
  }

  /** Resets every flow, as at the end of a session. */
  close(): void {
    for (const flow of [...this.#flows.values()]) {
      const { peer } = flow
      flow.reset()
      peer?.reset()
    }
  }

  #tcp(packet: Uint8Array): void {
    const { payload, end, source, addressLength } = this.#header
    const dataOffset = ((packet[payload + 12] ?? 0) >> 4) * 4
    if (end - payload < 20 || dataOffset < 20 || payload + dataOffset > end) {
      this.#count('drop-tcp-header')
      return
    }
    const sourceKey = this.#flows.end(packet, source, addressLength, read16(packet, payload))
    const destinationKey = this.#flows.end(
      packet,
      source + addressLength,
      addressLength,
      read16(packet, payload + 2),
    )
    const flow = this.#flows.get(destinationKey, sourceKey)
    const kind = (packet[payload + 13] ?? 0) & 0x17
    if (kind === 2) {
      if (!flow || flow.synAgain(read32(packet, payload + 4)))
        this.#open(packet, [destinationKey, sourceKey])
    } else if (!flow) {
      if ((kind & 4) === 0) this.#resetStranger(packet, kind)
    } else if ((kind & 2) !== 0) {
      flow.acknowledge()
    } else {
      flow.segment(packet, payload, end)
      if (flow.ackDue) this.#acks.add(flow)
    }
  }

  #open(packet: Uint8Array, keys: readonly [number, number]): void {
    const { source, addressLength, payload, end, family } = this.#header
    if (this.#multicast(packet)) {
      this.#count('drop-multicast')
      return
    }
    this.#held = 0
    for (const waiting of this.#due) if (waiting.state === 'held') this.#held++
    if (this.#held >= maxHeld || this.#flows.size >= maxFlows) {
      this.#count('drop-syn-limit')
      return
    }
    const flow = new TcpFlow(
      this.#host,
      packet,
      { source, length: addressLength, payload, end },
      keys,
    )
    this.#flows.set(...keys, flow)
    this.#count('flows')
    flow.peer = this.#options.dial({ family, address: flow.remote, port: flow.remotePort }, flow)
  }

  #multicast(packet: Uint8Array): boolean {
    const first = packet[this.#header.source + this.#header.addressLength] ?? 0
    return this.#header.family === 4 ? first >= 224 : first === 0xff
  }

  /** RFC 9293 §3.10.7.1: a segment for no connection is answered with a reset. */
  #resetStranger(packet: Uint8Array, flags: number): void {
    const { payload, end, source, addressLength, family } = this.#header
    const length = end - payload - ((packet[payload + 12] ?? 0) >> 4) * 4 + (flags & 1)
    const acknowledged = (flags & 16) !== 0
    const at = family === 4 ? 20 : 40
    const out = this.#out
    const from = packet.slice(source + addressLength, source + 2 * addressLength)
    const to = packet.slice(source, source + addressLength)
    write16(out, at, read16(packet, payload + 2))
    write16(out, at + 2, read16(packet, payload))
    write32(out, at + 4, acknowledged ? read32(packet, payload + 8) : 0)
    write32(out, at + 8, acknowledged ? 0 : (read32(packet, payload + 4) + length) >>> 0)
    write32(out, at + 12, 0x50000000 | ((acknowledged ? 4 : 20) << 16))
    write32(out, at + 16, 0)
    this.#count('stranger-reset')
    this.#host.send(writeHeader(out, from, to, { protocol: TCP, length: 20, checksumAt: 16 }))
  }

  /** RFC 1122 §3.2.2, RFC 4443 §3.1: from the destination, with as much of the packet as fits. */
  #icmpError(packet: Uint8Array, end: number, reason: keyof typeof unreachable): void {
    const second = Math.floor(this.#options.now() / 1000)
    if (second !== this.#icmpSecond) this.#icmpCount = 0
    this.#icmpSecond = second
    if (++this.#icmpCount > icmpPerSecond) {
      this.#count('drop-icmp-limit')
      return
    }
    const v4 = (packet[0] ?? 0) >> 4 === 4
    const at = v4 ? 20 : 40
    const quoted = Math.min(end, (v4 ? 576 : 1280) - at - 8)
    const out = this.#out
    const [source, size] = v4 ? [12, 4] : [8, 16]
    write16(out, at, v4 ? 0x0300 | unreachable[reason].v4 : 0x0100 | unreachable[reason].v6)
    write16(out, at + 2, 0)
    write32(out, at + 4, 0)
    out.set(packet.subarray(0, quoted), at + 8)
    const from = packet.slice(source + size, source + 2 * size)
    const to = packet.slice(source, source + size)
    this.#host.send(
      writeHeader(out, from, to, {
        protocol: v4 ? ICMP : ICMP6,
        length: 8 + quoted,
        checksumAt: 2,
      }),
    )
  }

  #count(name: string): void {
    this.counters.set(name, (this.counters.get(name) ?? 0) + 1)
  }
}
