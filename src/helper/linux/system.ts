import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { randomInt, randomBytes } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { deviceName, type Wish } from '../../shared/helper-contract.ts'

const table = '7411'
const priority = '5100'
const programs = ['/usr/sbin', '/sbin', '/usr/bin', '/bin']

function program(name: string): string {
  const found = programs.map((dir) => `${dir}/${name}`).find((path) => existsSync(path))
  if (found === undefined) throw new Error(`${name} is not installed`)
  return found
}

function run(name: string, args: readonly string[], input?: string): string {
  return execFileSync(program(name), args, {
    input: input ?? '',
    encoding: 'utf8',
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: 10_000,
  })
}

function tryRun(name: string, args: readonly string[]): boolean {
  try {
    run(name, args)
    return true
  } catch {
    return false
  }
}

/** Removes all that is ours, whether or not it is there: device (and its routes, link DNS), rules, nft table. */
export function recover(): void {
  for (const family of ['-4', '-6'])
    for (
      let i = 0;
      i < 2048 && tryRun('ip', [family, 'rule', 'del', 'priority', priority, 'table', table]);
      i++
    );
  tryRun('ip', ['link', 'del', deviceName])
  if (existsSync('/usr/sbin/nft')) tryRun('nft', ['delete', 'table', 'inet', 'tideway'])
}

/** What the system does with names: systemd-resolved splits them, else our redirect takes all. */
export function dnsMode(): 'resolved' | 'nft' {
  return existsSync('/run/systemd/resolve/stub-resolv.conf') &&
    /^nameserver 127\.0\.0\.53/m.test(readFileSync('/etc/resolv.conf', 'utf8'))
    ? 'resolved'
    : 'nft'
}

/** An address of our own from 198.18.0.0/15 that no interface has; brings the device up. */
export function configureDevice(mtu: number): string {
  const taken = run('ip', ['-o', 'addr'])
  let address: string
  do
    address = `198.${String(18 + randomInt(2))}.${String(randomInt(256))}.${String(1 + randomInt(254))}`
  while (taken.includes(` ${address}/`))
  const v6 = `fd${randomBytes(7)
    .toString('hex')
    .replace(/(..)(....)(....)(....)/, '$1:$2:$3:$4')}::1`
  for (const [key, value] of [
    ['ipv4/conf', 'rp_filter=1'],
    ['ipv6/conf', 'accept_ra=0'],
  ] as const) {
    const [name = '', setting = ''] = value.split('=')
    const path = `/proc/sys/net/${key}/${deviceName}/${name}`
    if (existsSync(path)) writeFileSync(path, setting)
  }
  run('ip', ['link', 'set', deviceName, 'mtu', String(mtu), 'up'])
  run('ip', ['addr', 'add', `${address}/32`, 'dev', deviceName])
  tryRun('ip', ['-6', 'addr', 'add', `${v6}/128`, 'dev', deviceName])
  return address
}

/** Routes and rules in our own table: the wish's, and no others. */
export function applyRoutes(
  wanted: readonly string[],
  had: readonly string[],
  address: string,
): void {
  const added = wanted.filter((r) => !had.includes(r))
  const gone = had.filter((r) => !wanted.includes(r))
  for (const v6 of [false, true]) {
    const mine = (r: string) => r.includes(':') === v6
    const lines = [
      ...added
        .filter(mine)
        .flatMap((r) => [
          `route replace ${r} dev ${deviceName} table ${table}${v6 ? '' : ` src ${address}`}`,
          `rule add to ${r} priority ${priority} table ${table}`,
        ]),
      ...gone
        .filter(mine)
        .flatMap((r) => [
          `rule del to ${r} priority ${priority} table ${table}`,
          `route del ${r} dev ${deviceName} table ${table}`,
        ]),
    ]
    if (lines.length > 0) run('ip', [v6 ? '-6' : '-4', '-batch', '-'], `${lines.join('\n')}\n`)
  }
}

export function applyResolved(dns: Wish['dns']): void {
  run('resolvectl', ['dns', deviceName, `127.0.0.1:${String(dns.port)}`])
  run('resolvectl', ['domain', deviceName, ...dns.suffixes.map((s) => `~${s}`), ...dns.search])
  run('resolvectl', ['default-route', deviceName, 'no'])
  for (const off of ['dnssec', 'dnsovertls', 'llmnr', 'mdns'])
    tryRun('resolvectl', [off, deviceName, 'no'])
}

/**
 * Holds our nft table: it goes with the process (`flags owner`), however that ends. The forwarder's own queries to the
 * upstream leave from ports 61440 to 61951, which the redirect lets pass.
 */
export function holdTable(dns: Wish['dns'] | undefined, servers: readonly string[]): ChildProcess {
  const child = spawn(program('nft'), ['-i'], { stdio: ['pipe', 'ignore', 'ignore'] })
  const v4 = servers.filter((s) => !s.includes(':'))
  const redirect =
    dns && v4.length > 0
      ? `add chain inet tideway dns { type nat hook output priority -110; }
add rule inet tideway dns udp sport 61440-61951 return
add rule inet tideway dns tcp sport 61440-61951 return
add rule inet tideway dns ip daddr { ${v4.join(', ')} } meta l4proto { tcp, udp } th dport 53 dnat ip to 127.0.0.1:${String(dns.port)}
`
      : ''
  child.stdin.write(`add table inet tideway { flags owner; }
add chain inet tideway spoof { type filter hook prerouting priority -300; }
add rule inet tideway spoof iifname ${deviceName} fib saddr . iif oif missing drop
${redirect}`)
  return child
}

export function hostServers(): readonly string[] {
  return [
    ...readFileSync('/etc/resolv.conf', 'utf8').matchAll(/^\s*nameserver\s+([0-9a-fA-F.:]+)/gm),
  ].map((m) => m[1] ?? '')
}
