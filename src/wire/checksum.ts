const littleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/**
 * The Internet checksum's sum, unfolded, of `bytes[from, to)`; `from` must be even.
 * The words are summed as they lie in memory, since the sum does not care (RFC 1071 §2 B).
 */
export function partialSum(bytes: Uint8Array, from: number, to: number): number {
  let sum = 0
  let at = from
  if ((bytes.byteOffset + at) % 4 === 0) {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + at, (to - at) >> 2)
    for (let i = 0; i < words.length; i++) sum += words[i] ?? 0
    at += words.length * 4
  }
  for (; at + 1 < to; at += 2) sum += pair(bytes[at] ?? 0, bytes[at + 1] ?? 0)
  if (at < to) sum += pair(bytes[at] ?? 0, 0)
  return sum
}

const pair = (first: number, second: number): number =>
  littleEndian ? first | (second << 8) : (first << 8) | second

/** Folds a sum into a checksum in network order. @see RFC 1071 */
export function foldSum(sum: number): number {
  while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000)
  const folded = ~sum & 0xffff
  return littleEndian ? ((folded & 0xff) << 8) | (folded >> 8) : folded
}

/** A 16-bit value in network order, as a term of `partialSum`. */
export function sumOf16(value: number): number {
  return pair((value >> 8) & 0xff, value & 0xff)
}
