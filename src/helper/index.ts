import { randomBytes } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection, createServer, type Socket } from 'node:net'
import type { ChildProcess } from 'node:child_process'
import {
  requestSchema,
  socketPath,
  deviceName,
  type Reply,
  type Request,
  type Wish,
} from '../shared/helper-contract.ts'
import { close, openTun, peerUid, sendDescriptor } from './linux/libc.ts'
import {
  applyResolved,
  applyRoutes,
  configureDevice,
  dnsMode,
  holdTable,
  hostServers,
  recover,
} from './linux/system.ts'

const journal = '/run/tideway/journal.json'
const maxLine = 256 * 1024

interface Session {
  socket: Socket
  fd: number
  ticket: string
  address: string
  routes: readonly string[]
  table: ChildProcess | undefined
  dnsPort: number
}
let session: Session | undefined
const allowed = new Set([0, Number(process.env['SUDO_UID'] ?? 0)])
const descriptorOf = (socket: Socket): number =>
  (socket as unknown as { _handle: { fd: number } })._handle.fd // Node has no public way to a socket's descriptor

function end(): void {
  if (!session) return
  const { fd, table } = session
  session = undefined
  table?.stdin?.end()
  table?.kill()
  close(fd)
  recover()
  rmSync(journal, { force: true })
}

function handle(socket: Socket, request: Request): Reply {
  switch (request.verb) {
    case 'open': {
      if (session) return { ok: false, step: 'open a session', detail: 'another session is open' }
      writeFileSync(journal, JSON.stringify({ device: deviceName, at: new Date().toISOString() }))
      recover()
      const fd = openTun(deviceName)
      session = {
        socket,
        fd,
        ticket: randomBytes(16).toString('hex'),
        address: '',
        routes: [],
        table: undefined,
        dnsPort: 0,
      }
      session.address = configureDevice(request.mtu)
      return { ok: true, ticket: session.ticket, address: session.address, dnsMode: dnsMode() }
    }
    case 'apply':
      if (session?.socket !== socket)
        return { ok: false, step: 'apply', detail: 'no session on this connection' }
      apply(session, request.wish)
      return { ok: true }
    case 'take':
      if (session?.ticket !== request.ticket)
        return { ok: false, step: 'hand over the device', detail: 'unknown ticket' }
      session.ticket = ''
      sendDescriptor(descriptorOf(socket), session.fd)
      return { ok: true }
    case 'stop':
      end()
      setImmediate(() => {
        rmSync(socketPath, { force: true })
        process.exit(0)
      })
      return { ok: true }
  }
}

function apply(own: Session, wish: Wish): void {
  applyRoutes(wish.routes, own.routes, own.address)
  own.routes = wish.routes
  const resolved = dnsMode() === 'resolved'
  if (resolved) applyResolved(wish.dns)
  if (own.table && own.dnsPort === wish.dns.port) return
  own.table?.kill()
  own.table = holdTable(resolved ? undefined : wish.dns, hostServers())
  own.dnsPort = wish.dns.port
}

function serve(socket: Socket): void {
  if (!allowed.has(peerUid(descriptorOf(socket)))) {
    socket.end(
      `${JSON.stringify({ ok: false, step: 'accept you', detail: 'this user may not use the helper' })}\n`,
    )
    return
  }
  let text = ''
  socket.setEncoding('utf8')
  socket.on('data', (chunk: string) => {
    text += chunk
    if (text.length > maxLine) socket.destroy()
    for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n')) {
      const line = text.slice(0, at)
      text = text.slice(at + 1)
      answer(socket, line)
    }
  })
  socket.on('error', () => socket.destroy())
  socket.on('close', () => {
    if (session?.socket === socket) end()
  })
}

function answer(socket: Socket, line: string): void {
  let verb = 'understand the request'
  let reply: Reply
  try {
    const request = requestSchema.parse(JSON.parse(line))
    verb = request.verb
    reply = handle(socket, request)
    if (verb === 'take' && reply.ok) return
  } catch (error) {
    reply = {
      ok: false,
      step: verb,
      detail: error instanceof Error ? error.message : String(error),
    }
  }
  socket.write(`${JSON.stringify(reply)}\n`)
}

/** Entry: `run` serves until it is told to stop; `recover` undoes what a crash left. */
export async function helperMain(verb: string): Promise<number> {
  if (process.getuid?.() !== 0) {
    process.stderr.write('The helper needs root: sudo tideway helper run\n')
    return 1
  }
  if (verb === 'recover') {
    recover()
    rmSync(journal, { force: true })
    return 0
  }
  mkdirSync('/run/tideway', { recursive: true, mode: 0o755 })
  if (existsSync(socketPath) && (await alive())) {
    process.stderr.write('A helper is running already.\n')
    return 1
  }
  rmSync(socketPath, { force: true })
  recover()
  const server = createServer(serve)
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  chmodSync(socketPath, 0o666)
  await new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, resolve)
  })
  end()
  rmSync(socketPath, { force: true })
  return 0
}

function alive(): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createConnection(socketPath, () => {
      probe.destroy()
      resolve(true)
    }).on('error', () => {
      resolve(false)
    })
  })
}
