import { contains, overlaps, subtract, type Subnet } from './subnet.ts'

export interface RoutingWish {
  readonly cluster: readonly Subnet[]
  readonly alsoProxy: readonly Subnet[]
  readonly neverProxy: readonly Subnet[]
  /** Networks this machine is connected to: cut out, and said. */
  readonly local: readonly Subnet[]
}

/**
 * What the TUN device gets: cluster subnets and also-proxy, without never-proxy and local networks. The narrower of
 * also-proxy and never-proxy wins. Computed whole, from scratch.
 * @returns routes in ascending order, and the local networks that overlapped (each a warning)
 */
export function tunnelSubnets(wish: RoutingWish): {
  routes: readonly Subnet[]
  conflicts: readonly Subnet[]
} {
  const wanted = [...wish.cluster, ...wish.alsoProxy]
  const conflicts = wish.local.filter((l) => wanted.some((w) => overlaps(w, l)))
  let routes: readonly Subnet[] = wanted
  for (const never of wish.neverProxy) {
    const kept = wish.alsoProxy.filter((also) => contains(never, also))
    routes = [...routes.flatMap((r) => (kept.includes(r) ? [r] : subtract(r, never))), ...kept]
  }
  for (const local of conflicts) routes = routes.flatMap((r) => subtract(r, local))
  const unique = routes.filter(
    (r, i) => !routes.some((o, j) => contains(o, r) && (j < i || !contains(r, o))),
  )
  return { routes: [...unique].sort(compare), conflicts }
}

function compare(a: Subnet, b: Subnet): number {
  return a.family - b.family || (a.base < b.base ? -1 : a.base > b.base ? 1 : a.bits - b.bits)
}
