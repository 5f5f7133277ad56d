import { parseAddress } from '../../shared/subnet.ts'
import type { KubeObject } from './api.ts'

export interface Service {
  readonly name: string
  readonly namespace: string
  /** Empty for a headless Service. */
  readonly clusterIPs: readonly string[]
  readonly externalName: string | undefined
  readonly ports: readonly { name: string; port: number; protocol: string }[]
}

export interface Endpoint {
  readonly address: string
  readonly ready: boolean
  readonly hostname: string | undefined
  readonly pod: string | undefined
}

interface Slice {
  readonly service: string
  readonly namespace: string
  readonly ports: readonly { name: string; port: number }[]
  readonly endpoints: readonly Endpoint[]
}

export interface Pod {
  readonly name: string
  readonly namespace: string
  readonly uid: string
  readonly ready: boolean
  readonly addresses: readonly string[]
}

export type Target =
  | { kind: 'pod'; pod: Pod; port: number }
  | { kind: 'refused' }
  | { kind: 'unreachable' }
  | { kind: 'unknown' }

export type Kind = 'namespaces' | 'services' | 'endpointslices' | 'pods'

/** What the watches know: of each object only what is used. */
export class Store {
  readonly namespaces = new Set<string>()
  readonly services = new Map<string, Service>()
  readonly #slices = new Map<string, Slice>()
  readonly #slicesOf = new Map<string, Map<string, Slice>>()
  readonly pods = new Map<string, Pod>()
  readonly #serviceAt = new Map<string, Service>()
  readonly #podAt = new Map<string, Pod>()
  #turn = 0

  /** Takes the whole of a list: what it lacks is forgotten. */
  replace(kind: Kind, namespace: string | undefined, objects: readonly KubeObject[]): void {
    const seen = new Set(objects.map(keyOf))
    const mine = (key: string) => namespace === undefined || key.startsWith(`${namespace}/`)
    for (const key of [...this.#keys(kind)])
      if (mine(key) && !seen.has(key)) this.#remove(kind, key)
    for (const object of objects) this.put(kind, object)
  }

  put(kind: Kind, object: KubeObject): void {
    const key = keyOf(object)
    this.#remove(kind, key)
    const name = object.metadata.name ?? ''
    const namespace = object.metadata.namespace ?? ''
    if (kind === 'namespaces') this.namespaces.add(name)
    else if (kind === 'services') {
      const spec = object.spec ?? {}
      const ips = (spec['clusterIPs'] as string[] | undefined) ?? []
      const service: Service = {
        name,
        namespace,
        clusterIPs: ips.filter((ip) => ip !== 'None' && ip !== ''),
        externalName: spec['externalName'] as string | undefined,
        ports: (
          (spec['ports'] as { name?: string; port: number; protocol?: string }[] | undefined) ?? []
        ).map((p) => ({
          name: p.name ?? '',
          port: p.port,
          protocol: p.protocol ?? 'TCP',
        })),
      }
      this.services.set(key, service)
      for (const ip of service.clusterIPs) this.#serviceAt.set(canonical(ip), service)
    } else if (kind === 'endpointslices') this.#putSlice(key, object)
    else this.#putPod(key, object)
  }

  remove(kind: Kind, object: KubeObject): void {
    this.#remove(kind, keyOf(object))
  }

  endpoints(service: Service): readonly Endpoint[] {
    return [
      ...(this.#slicesOf.get(`${service.namespace}/${service.name}`)?.values() ?? []),
    ].flatMap((s) => s.endpoints)
  }

  /** Where a TCP connection to `address` goes; ready endpoints take turns. */
  target(address: string, port: number): Target {
    const service = this.#serviceAt.get(address)
    if (service) return this.#serviceTarget(service, port)
    const pod = this.#podAt.get(address)
    return pod ? { kind: 'pod', pod, port } : { kind: 'unknown' }
  }

  podNamed(address: string): Pod | undefined {
    return this.#podAt.get(address)
  }

  serviceAt(address: string): Service | undefined {
    return this.#serviceAt.get(address)
  }

  #serviceTarget(service: Service, port: number): Target {
    const wanted = service.ports.find((p) => p.port === port && p.protocol === 'TCP')
    if (!wanted) return { kind: 'refused' }
    const all = [
      ...(this.#slicesOf.get(`${service.namespace}/${service.name}`)?.values() ?? []),
    ].flatMap((slice) => {
      const number = slice.ports.find((p) => p.name === wanted.name)?.port
      return number === undefined
        ? []
        : slice.endpoints.filter((e) => e.ready).map((e) => ({ endpoint: e, port: number }))
    })
    const reached = all.flatMap(({ endpoint, port: number }) => {
      const pod = this.#podAt.get(canonical(endpoint.address))
      return pod ? [{ kind: 'pod' as const, pod, port: number }] : []
    })
    return (
      reached[this.#turn++ % Math.max(1, reached.length)] ??
      (all.length > 0 ? { kind: 'unreachable' } : { kind: 'refused' })
    )
  }

  #putSlice(key: string, object: KubeObject): void {
    const endpoints = (object['endpoints'] as RawEndpoint[] | null | undefined) ?? []
    const slice: Slice = {
      service: object.metadata.labels?.['kubernetes.io/service-name'] ?? '',
      namespace: object.metadata.namespace ?? '',
      ports: ((object['ports'] as { name?: string; port?: number }[] | null | undefined) ?? []).map(
        (p) => ({
          name: p.name ?? '',
          port: p.port ?? 0,
        }),
      ),
      endpoints: endpoints.flatMap((e) =>
        (e.addresses ?? []).map((address) => ({
          address,
          ready: e.conditions?.ready !== false,
          hostname: e.hostname,
          pod: e.targetRef?.kind === 'Pod' ? e.targetRef.name : undefined,
        })),
      ),
    }
    this.#slices.set(key, slice)
    const owner = `${slice.namespace}/${slice.service}`
    const siblings = this.#slicesOf.get(owner) ?? new Map<string, Slice>()
    this.#slicesOf.set(owner, siblings.set(key, slice))
  }

  #putPod(key: string, object: KubeObject): void {
    const status = object.status ?? {}
    const phase = status['phase'] as string | undefined
    if (object.spec?.['hostNetwork'] === true || phase === 'Succeeded' || phase === 'Failed') return
    const conditions =
      (status['conditions'] as { type: string; status: string }[] | undefined) ?? []
    const pod: Pod = {
      name: object.metadata.name ?? '',
      namespace: object.metadata.namespace ?? '',
      uid: object.metadata.uid ?? '',
      ready: conditions.some((c) => c.type === 'Ready' && c.status === 'True'),
      addresses: ((status['podIPs'] as { ip: string }[] | undefined) ?? []).map((p) =>
        canonical(p.ip),
      ),
    }
    this.pods.set(key, pod)
    for (const address of pod.addresses) this.#podAt.set(address, pod)
  }

  #keys(kind: Kind): Iterable<string> {
    if (kind === 'namespaces') return this.namespaces
    return { services: this.services, endpointslices: this.#slices, pods: this.pods }[kind].keys()
  }

  #remove(kind: Kind, key: string): void {
    if (kind === 'namespaces') this.namespaces.delete(key)
    else if (kind === 'services') {
      const old = this.services.get(key)
      for (const ip of old?.clusterIPs ?? [])
        if (this.#serviceAt.get(canonical(ip)) === old) this.#serviceAt.delete(canonical(ip))
      this.services.delete(key)
    } else if (kind === 'endpointslices') {
      const old = this.#slices.get(key)
      if (old) this.#slicesOf.get(`${old.namespace}/${old.service}`)?.delete(key)
      this.#slices.delete(key)
    } else {
      const old = this.pods.get(key)
      for (const address of old?.addresses ?? [])
        if (this.#podAt.get(address) === old) this.#podAt.delete(address)
      this.pods.delete(key)
    }
  }
}

interface RawEndpoint {
  addresses?: string[]
  hostname?: string
  conditions?: { ready?: boolean }
  targetRef?: { kind?: string; name?: string }
}

function keyOf(object: KubeObject): string {
  const { namespace, name = '' } = object.metadata
  return namespace === undefined ? name : `${namespace}/${name}`
}

/** One spelling for each address, as the netstack's is. */
export function canonical(text: string): string {
  const address = parseAddress(text)
  return address ? `${String(address.family)}:${address.value.toString(16)}` : text
}
