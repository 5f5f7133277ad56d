import { AppError } from './problem.ts'

/** A subnet in canonical form: `base` has no bits set beyond `bits`. */
export interface Subnet {
  readonly family: 4 | 6
  readonly base: bigint
  readonly bits: number
}

const width = (family: 4 | 6): number => (family === 4 ? 32 : 128)

function parseV4(text: string): bigint | undefined {
  const parts = text.split('.')
  if (parts.length !== 4 || !parts.every((p) => /^(0|[1-9]\d{0,2})$/.test(p) && Number(p) < 256))
    return undefined
  return parts.reduce((sum, p) => sum * 256n + BigInt(p), 0n)
}

function parseV6(text: string): bigint | undefined {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(text)
  if (dotted) {
    const v4 = parseV4(dotted[2] ?? '')
    if (v4 === undefined) return undefined
    text = `${dotted[1] ?? ''}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`
  }
  const halves = text.split('::')
  if (halves.length > 2) return undefined
  const groups = halves.map((half) => (half === '' ? [] : half.split(':')))
  const head = groups[0] ?? []
  const tail = groups[1] ?? []
  const missing = 8 - head.length - tail.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  const all = [...head, ...Array<string>(missing).fill('0'), ...tail]
  if (!all.every((g) => /^[0-9a-f]{1,4}$/i.test(g))) return undefined
  return all.reduce((sum, g) => (sum << 16n) | BigInt(`0x${g}`), 0n)
}

/** @returns the address as a number, or undefined if `text` is no IPv4 or IPv6 address (RFC 4291 §2.2). */
export function parseAddress(text: string): { family: 4 | 6; value: bigint } | undefined {
  const family = text.includes(':') ? 6 : 4
  const value = family === 4 ? parseV4(text) : parseV6(text)
  return value === undefined ? undefined : { family, value }
}

/** Formats an address; IPv6 as RFC 5952 wants it. */
export function formatAddress(family: 4 | 6, value: bigint): string {
  if (family === 4) return [24n, 16n, 8n, 0n].map((s) => String((value >> s) & 255n)).join('.')
  const groups = Array.from({ length: 8 }, (_, i) =>
    ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16),
  )
  const runs = [...groups.join(':').matchAll(/(?:^|:)0(?::0)+(?=:|$)/g)].map((m) => m[0])
  const longest = runs.sort((a, b) => b.length - a.length)[0]
  if (longest === undefined) return groups.join(':')
  const text = groups.join(':')
  const at = text.indexOf(longest)
  const before = text.slice(0, at)
  const after = text.slice(at + longest.length).replace(/^:/, '')
  return `${before}::${after}`
}

/**
 * Parses CIDR notation or a bare address.
 * @throws AppError `bad-subnet` if it is neither, or has bits set beyond its length
 */
export function parseSubnet(text: string): Subnet {
  const [addressText = '', bitsText, ...rest] = text.split('/')
  const address = parseAddress(addressText)
  if (!address || rest.length > 0 || (bitsText !== undefined && !/^\d{1,3}$/.test(bitsText)))
    throw new AppError({ code: 'bad-subnet', text })
  const max = width(address.family)
  const bits = bitsText === undefined ? max : Number(bitsText)
  if (bits > max) throw new AppError({ code: 'bad-subnet', text })
  const subnet = subnetOf(address.family, address.value, bits)
  if (subnet.base !== address.value) throw new AppError({ code: 'bad-subnet', text })
  return subnet
}

/** The subnet of `bits` bits in which `value` lies. */
export function subnetOf(family: 4 | 6, value: bigint, bits: number): Subnet {
  const shift = BigInt(width(family) - bits)
  return { family, base: (value >> shift) << shift, bits }
}

export function formatSubnet(subnet: Subnet): string {
  return `${formatAddress(subnet.family, subnet.base)}/${String(subnet.bits)}`
}

/** True if `inner` lies wholly in `outer`. */
export function contains(outer: Subnet, inner: Subnet): boolean {
  return (
    outer.family === inner.family &&
    outer.bits <= inner.bits &&
    subnetOf(inner.family, inner.base, outer.bits).base === outer.base
  )
}

export function overlaps(a: Subnet, b: Subnet): boolean {
  return contains(a, b) || contains(b, a)
}

/** `from` without `hole`, as the fewest subnets, in ascending order. */
export function subtract(from: Subnet, hole: Subnet): readonly Subnet[] {
  if (contains(hole, from)) return []
  if (!contains(from, hole)) return [from]
  const bits = from.bits + 1
  const half = 1n << BigInt(width(from.family) - bits)
  const low = { family: from.family, base: from.base, bits }
  const high = { family: from.family, base: from.base + half, bits }
  return [...subtract(low, hole), ...subtract(high, hole)]
}

/** The narrowest subnet that holds every one of `values`; undefined for none. */
export function cover(family: 4 | 6, values: readonly bigint[]): Subnet | undefined {
  const first = values[0]
  if (first === undefined) return undefined
  let bits = width(family)
  for (const value of values)
    while (subnetOf(family, value, bits).base !== subnetOf(family, first, bits).base) bits--
  return subnetOf(family, first, bits)
}
