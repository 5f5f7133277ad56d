import { foldSum, partialSum, sumOf16 } from './checksum.ts'

export const TCP = 6
export const UDP = 17
export const ICMP = 1
export const ICMP6 = 58

/** Where the parts of a packet lie; one object is used again for every packet. */
export interface Header {
  family: 4 | 6
  protocol: number
  /** Offset and length in bytes of the source address; the destination follows it. */
  source: number
  addressLength: number
  payload: number
  end: number
}

export type Malformed = 'short' | 'version' | 'length' | 'fragment' | 'extension'

export function emptyHeader(): Header {
  return { family: 4, protocol: 0, source: 0, addressLength: 4, payload: 0, end: 0 }
}

/**
 * Reads the IP header of `bytes[0, length)` into `into`. IPv6 extension headers are walked, at most eight.
 * The checksum is not verified: the packet comes from the local kernel.
 * @returns undefined, or why the packet is dropped
 * @see RFC 791 §3.1, RFC 8200 §4
 */
export function parseHeader(
  bytes: Uint8Array,
  length: number,
  into: Header,
): Malformed | undefined {
  if (length < 20) return 'short'
  const version = (bytes[0] ?? 0) >> 4
  if (version === 4) {
    const headerLength = ((bytes[0] ?? 0) & 15) * 4
    const total = read16(bytes, 2)
    if (headerLength < 20 || total < headerLength || total > length) return 'length'
    if ((read16(bytes, 6) & 0x3fff) !== 0) return 'fragment'
    into.family = 4
    into.protocol = bytes[9] ?? 0
    into.source = 12
    into.addressLength = 4
    into.payload = headerLength
    into.end = total
    return undefined
  }
  if (version !== 6) return 'version'
  if (length < 40) return 'short'
  const end = 40 + read16(bytes, 4)
  if (end > length) return 'length'
  into.family = 6
  into.source = 8
  into.addressLength = 16
  into.end = end
  let next = bytes[6] ?? 0
  let at = 40
  for (let walked = 0; ; walked++) {
    if (next === 44) return 'fragment'
    if (next !== 0 && next !== 43 && next !== 60) break
    if (walked === 8 || at + 8 > end) return 'extension'
    next = bytes[at] ?? 0
    at += ((bytes[at + 1] ?? 0) + 1) * 8
    if (at > end) return 'extension'
  }
  into.protocol = next
  into.payload = at
  return undefined
}

export function read16(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
}

export function read32(bytes: Uint8Array, at: number): number {
  return ((read16(bytes, at) << 16) | read16(bytes, at + 2)) >>> 0
}

export function write16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8
  bytes[at + 1] = value
}

export function write32(bytes: Uint8Array, at: number, value: number): void {
  write16(bytes, at, value >>> 16)
  write16(bytes, at + 2, value & 0xffff)
}

/**
 * Writes an IP header in front of a payload that already lies at its place (20 or 40), and the payload's checksum.
 * @param checksumAt offset of the checksum in the payload, which must hold zero
 * @returns the packet's length in bytes
 */
export function writeHeader(
  out: Uint8Array,
  source: Uint8Array,
  destination: Uint8Array,
  payload: { protocol: number; length: number; checksumAt: number },
): number {
  const v4 = source.length === 4
  const start = v4 ? 20 : 40
  const total = start + payload.length
  if (v4) {
    out[0] = 0x45
    out[1] = 0
    write16(out, 2, total)
    write32(out, 4, 0x4000)
    out[8] = 64
    out[9] = payload.protocol
    write16(out, 10, 0)
    out.set(source, 12)
    out.set(destination, 16)
    write16(out, 10, foldSum(partialSum(out, 0, 20)))
  } else {
    write32(out, 0, 0x60000000)
    write16(out, 4, payload.length)
    out[6] = payload.protocol
    out[7] = 64
    out.set(source, 8)
    out.set(destination, 24)
  }
  const pseudo =
    v4 && payload.protocol === ICMP
      ? 0
      : partialSum(out, v4 ? 12 : 8, start) + sumOf16(payload.protocol) + sumOf16(payload.length)
  write16(out, start + payload.checksumAt, foldSum(pseudo + partialSum(out, start, total)))
  return total
}
