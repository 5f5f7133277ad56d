/** SPDY/3.1 frames, as port-forward uses them. @see portforward.md, the SPDY/3.1 draft */
export const SYN_STREAM = 1
export const SYN_REPLY = 2
export const RST_STREAM = 3
export const PING = 6
export const GOAWAY = 7
export const FLAG_FIN = 1

function frame(first: number, flags: number, body: Uint8Array): Uint8Array {
  const out = new Uint8Array(8 + body.length)
  const view = new DataView(out.buffer)
  view.setUint32(0, first)
  view.setUint32(4, (flags << 24) | body.length)
  out.set(body, 8)
  return out
}

const control = (type: number, flags: number, body: Uint8Array): Uint8Array =>
  frame((0x80030000 | type) >>> 0, flags, body)

/** A data frame's 8-byte header; the bytes follow it. */
export function dataHeader(stream: number, length: number, flags = 0): Uint8Array {
  const out = new Uint8Array(8)
  const view = new DataView(out.buffer)
  view.setUint32(0, stream)
  view.setUint32(4, ((flags << 24) | length) >>> 0)
  return out
}

export function rstStream(stream: number): Uint8Array {
  const body = new Uint8Array(8)
  new DataView(body.buffer).setUint32(0, stream)
  body[7] = 5
  return control(RST_STREAM, 0, body)
}

export function ping(id: number): Uint8Array {
  const body = new Uint8Array(4)
  new DataView(body.buffer).setUint32(0, id)
  return control(PING, 0, body)
}

/**
 * @param first true for the session's first header block: it begins the session's one zlib stream
 * @returns SYN_STREAM with its headers in a stored block, flushed by an empty one (RFC 1950, RFC 1951 §3.2.4)
 */
export function synStream(
  stream: number,
  flags: number,
  headers: Readonly<Record<string, string>>,
  first: boolean,
): Uint8Array {
  const text = new TextEncoder()
  const entries = Object.entries(headers).flatMap(([name, value]) => [
    text.encode(name),
    text.encode(value),
  ])
  const size = 4 + entries.reduce((sum, e) => sum + 4 + e.length, 0)
  const block = new Uint8Array((first ? 2 : 0) + 5 + size + 5)
  const view = new DataView(block.buffer)
  let at = 0
  if (first) {
    block.set([0x78, 0x01])
    at = 2
  }
  view.setUint16(at + 1, size, true)
  view.setUint16(at + 3, ~size & 0xffff, true)
  at += 5
  view.setUint32(at, entries.length / 2)
  at += 4
  for (const entry of entries) {
    view.setUint32(at, entry.length)
    block.set(entry, at + 4)
    at += 4 + entry.length
  }
  block.set([0, 0, 0, 0xff, 0xff], at)
  const body = new Uint8Array(10 + block.length)
  new DataView(body.buffer).setUint32(0, stream)
  body.set(block, 10)
  return control(SYN_STREAM, flags, body)
}

export interface SpdyEvents {
  control(type: number, stream: number, body: Uint8Array): void
  /** Part of a data frame; `fin` with its last part. */
  data(stream: number, bytes: Uint8Array, fin: boolean): void
}

const maxControl = 1 << 16

/** Cuts a byte stream into frames. Data is handed on as it comes, without a copy. */
export class SpdyParser {
  readonly #events: SpdyEvents
  readonly #head = new Uint8Array(8)
  #headLength = 0
  #body: Uint8Array | undefined
  #bodyLength = 0
  #left = 0

  constructor(events: SpdyEvents) {
    this.#events = events
  }

  /** @throws Error if a control frame is longer than 64 KB: the far end does not speak SPDY */
  push(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#headLength < 8) {
        const part = Math.min(8 - this.#headLength, bytes.length - at)
        this.#head.set(bytes.subarray(at, at + part), this.#headLength)
        this.#headLength += part
        at += part
        if (this.#headLength < 8) return
        this.#begin()
        if (this.#left > 0) continue
      }
      const part = bytes.subarray(at, at + Math.min(this.#left, bytes.length - at))
      at += part.length
      this.#left -= part.length
      this.#part(part)
      if (this.#left === 0) this.#headLength = 0
    }
  }

  #begin(): void {
    const view = new DataView(this.#head.buffer)
    this.#left = view.getUint32(4) & 0xffffff
    if ((view.getUint8(0) & 0x80) === 0) this.#body = undefined
    else if (this.#left > maxControl) throw new Error('SPDY control frame too long')
    else this.#body = new Uint8Array(this.#left)
    this.#bodyLength = 0
    if (this.#left === 0) {
      this.#part(new Uint8Array(0))
      this.#headLength = 0
    }
  }

  #part(part: Uint8Array): void {
    const view = new DataView(this.#head.buffer)
    const fin = this.#left === 0 && (view.getUint8(4) & FLAG_FIN) !== 0
    if (!this.#body) {
      this.#events.data(view.getUint32(0), part, fin)
      return
    }
    this.#body.set(part, this.#bodyLength)
    this.#bodyLength += part.length
    if (this.#left > 0) return
    const stream = this.#body.length >= 4 ? new DataView(this.#body.buffer).getUint32(0) : 0
    this.#events.control(view.getUint16(2), stream, this.#body)
  }
}
