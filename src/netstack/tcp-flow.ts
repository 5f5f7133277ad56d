import { read16, read32, TCP, write16, write32, writeHeader } from '../wire/ip.ts'
import type { AppEnd, Outcome, RemoteEnd } from './ports.ts'

const FIN = 1
const SYN = 2
const RST = 4
const PSH = 8
const ACK = 16
const windowShift = 7
const timeWaitMs = 1000
const maxRtoMs = 8000

/** What a flow needs of the netstack around it. */
export interface FlowHost {
  readonly mtu: number
  readonly out: Uint8Array
  now(): number
  random(): number
  send(length: number): void
  refuse(flow: TcpFlow, outcome: Outcome): void
  /** Asks for `flow.tick` at or after `flow.dueAt`. */
  schedule(flow: TcpFlow): void
  forget(flow: TcpFlow): void
}

const before = (a: number, b: number): boolean => ((a - b) | 0) < 0

/**
 * One TCP connection between the application's kernel and us, over a link that neither loses nor reorders much:
 * no reassembly queue, no congestion control, go-back-N.
 * @see RFC 9293, RFC 5961, dataplane.md §3.3
 */
export class TcpFlow implements AppEnd {
  readonly local: Uint8Array
  readonly remote: Uint8Array
  readonly localPort: number
  readonly remotePort: number
  readonly keys: readonly [number, number]
  readonly irs: number
  state: 'held' | 'syn-received' | 'open' | 'time-wait' | 'gone' = 'held'
  /** The first SYN's header and eight bytes, for an ICMP error; only while held. */
  syn: Uint8Array | undefined
  dueAt = Infinity
  peer: RemoteEnd | undefined
  readonly #host: FlowHost
  #mss: number
  #peerShift: number | undefined
  #peerWindow: number
  readonly #iss: number
  #una: number
  #nxt: number
  #max: number
  #rcvNxt: number
  #edge: number
  readonly #cap: number
  #unconsumed = 0
  #chunks: Uint8Array[] = []
  #headOffset = 0
  #cursor = 0
  #cursorOffset = 0
  #queued = 0
  #finQueued = false
  #finAcked = false
  #finReceived = false
  #endedFirst = false
  #rtoMs = 200
  #tries = 0
  #duplicates = 0
  #lastSynAt: number
  #synGapMs = 0
  ackDue = false

  constructor(
    host: FlowHost,
    packet: Uint8Array,
    at: { source: number; length: number; payload: number; end: number },
    keys: readonly [number, number],
  ) {
    this.#host = host
    this.keys = keys
    this.local = packet.slice(at.source, at.source + at.length)
    this.remote = packet.slice(at.source + at.length, at.source + 2 * at.length)
    this.localPort = read16(packet, at.payload)
    this.remotePort = read16(packet, at.payload + 2)
    this.irs = read32(packet, at.payload + 4)
    this.syn = packet.slice(0, Math.min(at.end, at.payload + 8))
    const own = host.mtu - at.payload - 20
    const options = readOptions(
      packet,
      at.payload + 20,
      Math.min(at.end, at.payload + ((packet[at.payload + 12] ?? 0) >> 4) * 4),
    )
    this.#mss = Math.max(88, Math.min(own, options.mss ?? (at.length === 4 ? 536 : 1220)))
    this.#peerShift = options.shift
    this.#peerWindow = read16(packet, at.payload + 14)
    this.#iss = host.random() >>> 0
    this.#una = this.#nxt = this.#max = this.#iss
    this.#rcvNxt = (this.irs + 1) >>> 0
    this.#cap = Math.min(1 << 20, 250 * own)
    this.#edge = this.#rcvNxt
    this.#lastSynAt = host.now()
    this.#arm(8000)
  }

  get queued(): number {
    return this.#queued
  }

  accept(): void {
    if (this.state !== 'held') return
    this.state = 'syn-received'
    this.syn = undefined
    this.#nxt = this.#max = (this.#iss + 1) >>> 0
    this.#rtoMs = 1000
    this.#segment(SYN | ACK, this.#iss, 0)
    this.#arm(this.#rtoMs)
  }

  refuse(outcome: Outcome): void {
    if (this.state !== 'held') return
    if (outcome === 'refused') this.#segment(RST | ACK, 0, 0)
    else this.#host.refuse(this, outcome)
    this.#drop()
  }

  write(bytes: Uint8Array): void {
    if (
      this.state === 'gone' ||
      this.state === 'time-wait' ||
      this.#finQueued ||
      bytes.length === 0
    )
      return
    this.#chunks.push(bytes)
    this.#queued += bytes.length
    this.#output(false)
  }

  end(): void {
    if (this.#finQueued || this.state === 'gone') return
    this.#finQueued = true
    this.#endedFirst = !this.#finReceived
    this.#output(false)
  }

  reset(): void {
    if (this.state === 'gone') return
    if (this.state === 'held') {
      this.refuse('refused')
      return
    }
    if (this.state !== 'time-wait') this.#segment(RST | ACK, this.#nxt, 0)
    this.#drop()
  }

  consumed(count: number): void {
    this.#unconsumed = Math.max(0, this.#unconsumed - count)
    if (this.state !== 'open' || this.#finReceived) return
    const opened = (this.#wantedEdge() - this.#edge) | 0
    if (opened >= Math.min(2 * this.#mss, this.#cap >> 1)) this.acknowledge()
  }

  acknowledge(): void {
    this.ackDue = false
    if (this.state === 'open' || this.state === 'time-wait') this.#segment(ACK, this.#nxt, 0)
  }

  /** A SYN for this flow's 5-tuple. @returns true if it begins a new connection, and this flow is over */
  synAgain(sequence: number): boolean {
    if (this.state === 'time-wait') {
      this.#drop()
      return true
    }
    if (sequence !== this.irs) {
      if (this.state === 'held' || this.state === 'syn-received') {
        this.peer?.reset()
        this.#drop()
        return true
      }
      this.acknowledge()
      return false
    }
    const now = this.#host.now()
    this.#synGapMs = now - this.#lastSynAt
    this.#lastSynAt = now
    if (this.state === 'syn-received') this.#segment(SYN | ACK, this.#iss, 0)
    else if (this.state === 'open') this.acknowledge()
    return false
  }

  /** Takes a segment that is no SYN. The flow's answer may wait for the end of the batch (`ackDue`). */
  segment(packet: Uint8Array, payload: number, end: number): void {
    if (this.state === 'held') return
    const flags = packet[payload + 13] ?? 0
    const sequence = read32(packet, payload + 4)
    let from = payload + ((packet[payload + 12] ?? 0) >> 4) * 4
    if ((flags & RST) !== 0) {
      this.#resetReceived(sequence)
      return
    }
    if ((flags & ACK) === 0) return
    const length = end - from
    if (!this.#acknowledged(read32(packet, payload + 8), read16(packet, payload + 14), length))
      return
    if (length === 0 && (flags & FIN) === 0) {
      if (sequence !== this.#rcvNxt) this.ackDue = true
      return
    }
    const skip = (this.#rcvNxt - sequence) | 0
    if (skip < 0 || skip > length || (skip === length && (flags & FIN) === 0)) {
      this.acknowledge()
      return
    }
    this.ackDue = true
    if (this.#finReceived) return
    from += skip
    const room = (this.#edge - this.#rcvNxt) | 0
    const take = Math.min(end - from, room)
    if (take > 0) {
      this.#rcvNxt = (this.#rcvNxt + take) >>> 0
      this.#unconsumed += take
      this.peer?.data(packet.subarray(from, from + take))
    }
    if ((flags & FIN) !== 0 && from + Math.max(0, take) === end) {
      this.#rcvNxt = (this.#rcvNxt + 1) >>> 0
      this.#finReceived = true
      this.peer?.end()
      this.#closeIfDone()
    }
  }

  tick(now: number): void {
    this.dueAt = Infinity
    if (this.state === 'time-wait') {
      this.#drop()
    } else if (this.state === 'held') {
      const givenUpAt = this.#lastSynAt + Math.max(8000, 2.5 * this.#synGapMs)
      if (now >= givenUpAt) this.#abort()
      else this.#arm(givenUpAt - now)
    } else if (this.state === 'syn-received') {
      if (++this.#tries > 5) {
        this.#abort()
        return
      }
      this.#segment(SYN | ACK, this.#iss, 0)
      this.#backOff()
    } else if (this.#una !== this.#max || this.#queued > 0) {
      if (++this.#tries > 10 && this.#peerWindow > 0) {
        this.peer?.reset()
        this.reset()
        return
      }
      this.#goBack()
      this.#output(true)
      this.#backOff()
    }
  }

  #resetReceived(sequence: number): void {
    if (sequence === this.#rcvNxt) {
      this.#abort()
    } else if (!before(sequence, this.#rcvNxt) && before(sequence, this.#edge)) {
      this.acknowledge()
    }
  }

  #abort(): void {
    const peer = this.state === 'time-wait' ? undefined : this.peer
    this.#drop()
    peer?.reset()
  }

  /** @returns false if the segment must not be looked at further */
  #acknowledged(ack: number, window: number, length: number): boolean {
    if (before(this.#max, ack) || before(ack, this.#una - (1 << 20))) {
      this.acknowledge()
      return false
    }
    if (this.state === 'syn-received') {
      if (ack !== this.#max) return false
      this.state = 'open'
      this.#una = ack
      this.#tries = 0
      this.#rtoMs = 200
      this.dueAt = Infinity
    }
    const scaled = window << (this.#peerShift ?? 0)
    const opened = scaled !== this.#peerWindow
    this.#peerWindow = scaled
    const advanced = (ack - this.#una) | 0
    if (advanced > 0) {
      this.#release(advanced)
      this.#una = ack
      if (before(this.#nxt, ack)) this.#nxt = ack
      this.#duplicates = this.#tries = 0
      this.#rtoMs = 200
      this.dueAt = Infinity
      if (this.#una !== this.#max) this.#arm(this.#rtoMs)
      this.peer?.drained()
    } else if (advanced === 0 && length === 0 && !opened && this.#una !== this.#max) {
      if (++this.#duplicates === 3) this.#goBack()
    }
    if (this.#finQueued && this.#queued === 0 && this.#una === this.#max && this.#finSent()) {
      this.#finAcked = true
      this.#closeIfDone()
    }
    if (this.state === 'open') this.#output(false)
    return this.state === 'open' || this.state === 'time-wait'
  }

  #finSentAt: number | undefined
  #finSent(): boolean {
    return this.#finSentAt !== undefined
  }

  #closeIfDone(): void {
    if (!this.#finAcked || !this.#finReceived || this.state !== 'open') return
    this.acknowledge()
    if (this.#endedFirst) {
      this.state = 'time-wait'
      this.peer = undefined
      this.#arm(timeWaitMs)
    } else this.#drop()
  }

  #release(count: number): void {
    let rest = Math.min(count, this.#queued)
    this.#queued -= rest
    while (rest > 0) {
      const head = this.#chunks[0]
      if (!head) break
      const left = head.length - this.#headOffset
      if (rest < left) {
        this.#headOffset += rest
        rest = 0
      } else {
        rest -= left
        this.#headOffset = 0
        this.#chunks.shift()
        if (this.#cursor > 0) this.#cursor--
        else this.#cursorOffset = 0
      }
    }
    if (this.#cursor === 0 && this.#cursorOffset < this.#headOffset)
      this.#cursorOffset = this.#headOffset
  }

  #goBack(): void {
    this.#nxt = this.#una
    this.#cursor = 0
    this.#cursorOffset = this.#headOffset
  }

  #output(force: boolean): void {
    if (this.state !== 'open') return
    for (;;) {
      const sent = (this.#nxt - this.#una) >>> 0
      const unsent = this.#queued - sent
      const room = Math.max(this.#peerWindow, force && sent === 0 ? 1 : 0) - sent
      const length = Math.min(unsent, room, this.#mss)
      if (length > 0) {
        this.#copy(length)
        const last = length === unsent
        const fin = last && this.#finQueued && room > length
        this.#segment(ACK | (last ? PSH : 0) | (fin ? FIN : 0), this.#nxt, length)
        this.#sent(length, fin)
        if (fin) return
        continue
      }
      if (unsent === 0 && this.#finQueued && !this.#finAcked && (room > 0 || force)) {
        this.#segment(ACK | FIN, this.#nxt, 0)
        this.#sent(0, true)
      } else if (unsent > 0 && sent === 0 && this.dueAt === Infinity) this.#arm(this.#rtoMs)
      return
    }
  }

  #sent(length: number, fin: boolean): void {
    this.#nxt = (this.#nxt + length + (fin ? 1 : 0)) >>> 0
    if (fin) this.#finSentAt = this.#nxt
    if (before(this.#max, this.#nxt)) this.#max = this.#nxt
    if (this.dueAt === Infinity) this.#arm(this.#rtoMs)
  }

  #copy(length: number): void {
    const out = this.#host.out
    let at = (this.local.length === 4 ? 20 : 40) + 20
    while (length > 0) {
      const chunk = this.#chunks[this.#cursor]
      if (!chunk) throw new Error('the send queue is shorter than its count')
      const part = Math.min(length, chunk.length - this.#cursorOffset)
      out.set(chunk.subarray(this.#cursorOffset, this.#cursorOffset + part), at)
      at += part
      length -= part
      this.#cursorOffset += part
      if (this.#cursorOffset === chunk.length) {
        this.#cursor++
        this.#cursorOffset = 0
      }
    }
  }

  #wantedEdge(): number {
    const room = Math.max(0, this.#cap - this.#unconsumed)
    return (this.#rcvNxt + ((room >> windowShift) << windowShift)) >>> 0
  }

  /** Writes one segment whose data, if any, already lies in `host.out`. */
  #segment(flags: number, sequence: number, length: number): void {
    const { out } = this.#host
    const at = this.local.length === 4 ? 20 : 40
    const syn = (flags & SYN) !== 0
    const scaled = this.#peerShift !== undefined
    const header = syn ? (scaled ? 28 : 24) : 20
    const wanted = this.#wantedEdge()
    if (before(this.#edge, wanted)) this.#edge = wanted
    let window = (this.#edge - this.#rcvNxt) >>> 0
    if (scaled && !syn) window >>= windowShift
    if (window > 0xffff) {
      window = 0xffff
      if (syn || !scaled) this.#edge = (this.#rcvNxt + 0xffff) >>> 0
    }
    write16(out, at, this.remotePort)
    write16(out, at + 2, this.localPort)
    write32(out, at + 4, sequence)
    write32(out, at + 8, this.#rcvNxt)
    out[at + 12] = (header / 4) << 4
    out[at + 13] = flags
    write16(out, at + 14, (flags & RST) !== 0 ? 0 : window)
    write32(out, at + 16, 0)
    if (syn) {
      write32(out, at + 20, 0x02040000 | Math.min(0xffff, this.#host.mtu - at - 20))
      if (scaled) write32(out, at + 24, 0x01030300 | windowShift)
    }
    if (!syn) this.ackDue = false
    this.#host.send(
      writeHeader(out, this.remote, this.local, {
        protocol: TCP,
        length: header + length,
        checksumAt: 16,
      }),
    )
  }

  #backOff(): void {
    this.#rtoMs = Math.min(maxRtoMs, this.#rtoMs * 2)
    this.#arm(this.#rtoMs)
  }

  #arm(afterMs: number): void {
    this.dueAt = this.#host.now() + afterMs
    this.#host.schedule(this)
  }

  #drop(): void {
    if (this.state === 'gone') return
    this.state = 'gone'
    this.dueAt = Infinity
    this.#chunks = []
    this.#queued = 0
    this.#host.forget(this)
  }
}

function readOptions(
  packet: Uint8Array,
  from: number,
  to: number,
): { mss?: number; shift?: number } {
  const found: { mss?: number; shift?: number } = {}
  for (let at = from; at < to;) {
    const kind = packet[at] ?? 0
    if (kind === 0) break
    if (kind === 1) {
      at++
      continue
    }
    const length = packet[at + 1] ?? 0
    if (length < 2 || at + length > to) break
    if (kind === 2 && length === 4) found.mss = read16(packet, at + 2)
    if (kind === 3 && length === 3) found.shift = Math.min(14, packet[at + 2] ?? 0)
    at += length
  }
  return found
}
