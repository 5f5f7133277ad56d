import fc from 'fast-check'
import { expect, test } from 'vitest'
import { tunnelSubnets } from './routing.ts'
import {
  contains,
  cover,
  formatAddress,
  formatSubnet,
  parseAddress,
  parseSubnet,
  subtract,
} from './subnet.ts'

test.each([
  ['10.96.0.0/16', '10.96.0.0/16'],
  ['192.0.2.1', '192.0.2.1/32'],
  ['fd00:96::/112', 'fd00:96::/112'],
  ['2001:DB8:0:0:1:0:0:1', '2001:db8::1:0:0:1/128'],
  ['::', '::/128'],
  ['::ffff:192.0.2.1', '::ffff:c000:201/128'],
])('parseSubnet %s', (text, want) => {
  expect(formatSubnet(parseSubnet(text))).toBe(want)
})

test.each([
  '',
  '10.0.0.1/8',
  '10.0.0/8',
  '010.0.0.0/8',
  '10.0.0.0/33',
  '1::2::3',
  'fd00::/129',
  '10.0.0.0/8/9',
  '10.0.0.0/-1',
])('parseSubnet refuses %j', (text) => {
  expect(() => parseSubnet(text)).toThrow('is not a subnet')
})

test('an IPv6 address survives being formatted', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, (1n << 128n) - 1n), (value) => {
      expect(parseAddress(formatAddress(6, value))).toEqual({ family: 6, value })
    }),
  )
})

test('subtract leaves no address of the hole and loses none besides', () => {
  fc.assert(
    fc.property(fc.bigInt(0n, 255n), fc.integer({ min: 24, max: 32 }), (low, bits) => {
      const from = parseSubnet('192.0.2.0/24')
      const base = from.base + ((low >> BigInt(32 - bits)) << BigInt(32 - bits))
      const hole = { family: 4 as const, base, bits }
      const rest = subtract(from, hole)
      for (let i = 0n; i < 256n; i++) {
        const one = { family: 4 as const, base: from.base + i, bits: 32 }
        expect(rest.filter((r) => contains(r, one)).length).toBe(contains(hole, one) ? 0 : 1)
      }
    }),
  )
})

test('cover', () => {
  const values = ['10.96.0.1', '10.96.3.9'].map((a) => parseAddress(a)?.value ?? 0n)
  expect(cover(4, values)).toEqual(parseSubnet('10.96.0.0/22'))
  expect(cover(4, [])).toBeUndefined()
})

test.each([
  {
    name: 'never-proxy cuts a hole',
    never: ['10.96.0.0/17'],
    also: [],
    local: [],
    want: ['10.96.128.0/17'],
    warn: 0,
  },
  {
    name: 'a narrower also-proxy wins',
    never: ['10.0.0.0/8'],
    also: ['10.96.7.0/24'],
    local: [],
    want: ['10.96.7.0/24'],
    warn: 0,
  },
  {
    name: 'a local network is left alone',
    never: [],
    also: [],
    local: ['10.96.0.0/17'],
    want: ['10.96.128.0/17'],
    warn: 1,
  },
  {
    name: 'covered routes merge',
    never: [],
    also: ['10.96.1.0/24'],
    local: [],
    want: ['10.96.0.0/16'],
    warn: 0,
  },
])('tunnelSubnets: $name', ({ never, also, local, want, warn }) => {
  const parse = (list: readonly string[]) => list.map(parseSubnet)
  const { routes, conflicts } = tunnelSubnets({
    cluster: parse(['10.96.0.0/16']),
    neverProxy: parse(never),
    alsoProxy: parse(also),
    local: parse(local),
  })
  expect(routes.map(formatSubnet)).toEqual(want)
  expect(conflicts.length).toBe(warn)
})
