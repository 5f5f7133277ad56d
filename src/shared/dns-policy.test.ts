import { expect, test } from 'vitest'
import { defaultExclude, routeDomains, routeOf, type DnsConfig } from './dns-policy.ts'

const config: DnsConfig = {
  zone: 'cluster.local',
  namespace: 'default',
  mapped: new Set(['default', 'shop', 'dev', 'io']),
  exclude: defaultExclude,
  include: [],
  isTld: (l) => ['dev', 'io', 'com'].includes(l),
}

test.each([
  { name: 'hello.default.svc.cluster.local', first: 'hello.default.svc.cluster.local' },
  { name: 'hello', first: 'hello.default.svc.cluster.local' },
  { name: 'db-0.db.shop', first: 'db-0.db.shop.default.svc.cluster.local' },
  { name: 'hello.default.svc', first: 'hello.default.svc.default.svc.cluster.local' },
])('$name is the cluster’s alone', ({ name, first }) => {
  const route = routeOf(name, config)
  expect(route).toMatchObject({ kind: 'cluster', elseUpstream: false })
  expect(route.kind === 'cluster' && route.candidates[0]).toBe(first)
})

test.each(['www.example.com', 'api.io', 'x.notdefault', 'notcluster.local.'])(
  '%s goes upstream',
  (name) => {
    expect(routeOf(name, config).kind).toBe('upstream')
  },
)

test('a namespace named like a TLD shares it with the internet', () => {
  expect(routeOf('web.dev', config)).toMatchObject({ kind: 'cluster', elseUpstream: true })
})

test('an include suffix as long as the exclude suffix wins', () => {
  expect(routeOf('api.io', { ...config, include: ['.io'] }).kind).toBe('cluster')
})

test('route domains never hold a TLD', () => {
  const services = [
    { name: 'api', namespace: 'dev' },
    { name: 'api', namespace: 'io' },
  ]
  expect(routeDomains(config, services)).toEqual([
    'cluster.local',
    'svc',
    'default',
    'shop',
    'api.dev',
  ])
})
