/** Which names are the cluster's. Names are lower case, without the last dot. @see dns.md §6.2 */
export interface DnsConfig {
  readonly zone: string
  /** The connected namespace. */
  readonly namespace: string
  readonly mapped: ReadonlySet<string>
  readonly exclude: readonly string[]
  readonly include: readonly string[]
  /** Delegated top-level domains; a namespace named like one never takes the whole of it. */
  readonly isTld: (label: string) => boolean
}

export const defaultExclude: readonly string[] = ['.arpa', '.com', '.io', '.net', '.org', '.ru']

/** Where a name goes: absolute candidates in a pod's search order, or upstream. */
export type Route =
  { kind: 'cluster'; candidates: readonly string[]; elseUpstream: boolean } | { kind: 'upstream' }

const hasSuffix = (name: string, suffix: string): boolean =>
  `.${name}`.endsWith(suffix.startsWith('.') ? suffix : `.${suffix}`)

export function routeOf(name: string, config: DnsConfig): Route {
  const { zone, namespace } = config
  if (name === zone || hasSuffix(name, zone))
    return { kind: 'cluster', candidates: [name], elseUpstream: false }
  const longest = (list: readonly string[]) =>
    Math.max(0, ...list.filter((s) => hasSuffix(name, s)).map((s) => s.length))
  const excluded = longest(config.exclude)
  const included = longest(config.include)
  if (excluded > 0 && included < excluded) return { kind: 'upstream' }
  const last = name.slice(name.lastIndexOf('.') + 1)
  const relative = name !== '' && (!name.includes('.') || last === 'svc' || config.mapped.has(last))
  if (!relative && included === 0) return { kind: 'upstream' }
  const candidates = [`${name}.${namespace}.svc.${zone}`, `${name}.svc.${zone}`, `${name}.${zone}`]
  return {
    kind: 'cluster',
    candidates,
    elseUpstream: name.includes('.') && last !== 'svc' && config.isTld(last),
  }
}

const reserved = new Set([
  'local',
  'localhost',
  'arpa',
  'invalid',
  'onion',
  'internal',
  'test',
  'example',
])

/** Domains that a resolver with split DNS sends to the forwarder; never a top-level domain. */
export function routeDomains(
  config: DnsConfig,
  services: Iterable<{ name: string; namespace: string }>,
): readonly string[] {
  const open = [...config.mapped].filter(
    (n) => !reserved.has(n) && !config.exclude.includes(`.${n}`),
  )
  const plain = open.filter((n) => !config.isTld(n))
  const single = new Set(open.filter((n) => config.isTld(n)))
  const names = [...services]
    .filter((s) => single.has(s.namespace))
    .map((s) => `${s.name}.${s.namespace}`)
  const included = config.include.map((s) => s.replace(/^\./, '')).filter((s) => !config.isTld(s))
  return [config.zone, 'svc', ...plain, ...names, ...included].slice(0, 512)
}
