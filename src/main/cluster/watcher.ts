import { setTimeout as wait } from 'node:timers/promises'
import { AppError } from '../../shared/problem.ts'
import { contains, cover, parseAddress, parseSubnet, type Subnet } from '../../shared/subnet.ts'
import type { Api, KubeObject } from './api.ts'
import type { Kind, Store } from './store.ts'

const paths: Record<Kind, (namespace: string | undefined) => string> = {
  namespaces: () => '/api/v1/namespaces',
  services: (n) => `/api/v1${inside(n)}/services`,
  endpointslices: (n) => `/apis/discovery.k8s.io/v1${inside(n)}/endpointslices`,
  pods: (n) => `/api/v1${inside(n)}/pods`,
}
const inside = (namespace: string | undefined): string =>
  namespace === undefined ? '' : `/namespaces/${namespace}`

/**
 * Lists, then watches for ever: bookmarks, a new list after 410, back-off from 0.25 s to 5 s.
 * Resolves when the first list is in the store.
 */
export async function follow(
  api: Api,
  store: Store,
  kind: Kind,
  options: {
    namespace: string | undefined
    signal: AbortSignal
    changed: () => void
    log: (line: string) => void
  },
): Promise<void> {
  const { namespace, signal, changed, log } = options
  const path = paths[kind](namespace)
  const list = async (): Promise<string> => {
    const body = (await api.call(`${path}?resourceVersion=0`)) as {
      metadata: { resourceVersion: string }
      items: KubeObject[]
    }
    store.replace(kind, namespace, body.items)
    changed()
    return body.metadata.resourceVersion
  }
  let version = await list()
  const run = async (): Promise<void> => {
    let pauseMs = 250
    while (!signal.aborted) {
      try {
        if (version === '') version = await list()
        const query = `?watch=1&allowWatchBookmarks=true&timeoutSeconds=290&resourceVersion=${version}`
        for await (const event of api.watch(`${path}${query}`, signal)) {
          pauseMs = 250
          if (event.type === 'ERROR') {
            version = ''
            break
          }
          version = event.object.metadata.resourceVersion ?? version
          if (event.type === 'BOOKMARK') continue
          if (event.type === 'DELETED') store.remove(kind, event.object)
          else store.put(kind, event.object)
          changed()
        }
      } catch (error) {
        if (signal.aborted) return
        log(`watch of ${kind}: ${error instanceof Error ? error.message : String(error)}`)
        version = ''
        await wait(pauseMs, undefined, { signal, ref: false }).catch((reason: unknown) => {
          if (!signal.aborted) throw reason
        })
        pauseMs = Math.min(5000, pauseMs * 2)
      }
    }
  }
  void run()
}

/** Service subnets from ServiceCIDR objects, else covering the ClusterIPs (KEP-1880). */
export async function serviceSubnets(api: Api, store: Store): Promise<readonly Subnet[]> {
  const ips = [...store.services.values()].flatMap((s) => s.clusterIPs)
  for (const version of ['v1', 'v1beta1']) {
    try {
      const body = (await api.call(`/apis/networking.k8s.io/${version}/servicecidrs`)) as {
        items: { spec: { cidrs: string[] } }[]
      }
      const found = body.items.flatMap((i) => i.spec.cidrs).map(parseSubnet)
      if (found.length > 0) return found
    } catch (error) {
      if (!(error instanceof AppError)) throw error
    }
  }
  return covering(ips)
}

/** Pod subnets from the nodes' podCIDRs that hold a real pod, else covering the pods' addresses. */
export async function podSubnets(
  api: Api,
  addresses: readonly string[],
): Promise<readonly Subnet[]> {
  let nodes: Subnet[] = []
  try {
    const body = (await api.call('/api/v1/nodes?resourceVersion=0')) as {
      items: { spec: { podCIDRs?: string[] } }[]
    }
    nodes = body.items.flatMap((n) => n.spec.podCIDRs ?? []).map(parseSubnet)
  } catch (error) {
    if (!(error instanceof AppError)) throw error
  }
  const hosts = addresses.map(parseSubnet)
  const used = nodes.filter((n) => hosts.some((h) => contains(n, h)))
  const left = addresses.filter((a) => !used.some((n) => contains(n, parseSubnet(a))))
  return [...used, ...covering(left)]
}

function covering(addresses: readonly string[]): readonly Subnet[] {
  return ([4, 6] as const).flatMap((family) => {
    const values = addresses.flatMap((a) => {
      const address = parseAddress(a)
      return address?.family === family ? [address.value] : []
    })
    const subnet = cover(family, values)
    return subnet && subnet.bits >= (family === 4 ? 8 : 16) ? [subnet] : []
  })
}
