import koffi from 'koffi'

const libc = koffi.load('libc.so.6')
const open = libc.func('int open(const char *path, int flags)') as (
  path: string,
  flags: number,
) => number
const closeFd = libc.func('int close(int fd)') as (fd: number) => number
const ioctl = libc.func('int ioctl(int fd, unsigned long request, void *arg)') as (
  fd: number,
  request: number,
  arg: Uint8Array,
) => number
const getsockopt = libc.func(
  'int getsockopt(int fd, int level, int name, void *value, void *length)',
) as (fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array) => number
const sendmsg = libc.func('intptr_t sendmsg(int fd, void *message, int flags)') as (
  fd: number,
  message: Uint8Array,
  flags: number,
) => number

function fail(what: string): never {
  throw new Error(`${what}: errno ${String(koffi.errno())}`)
}

/** Opens the TUN device by name. @returns its descriptor @see linux/if_tun.h, dataplane.md §2.2 */
export function openTun(name: string): number {
  const fd = open('/dev/net/tun', 0o2 | 0o4000 | 0o2000000)
  if (fd < 0) fail('open /dev/net/tun')
  const request = Buffer.alloc(40)
  request.write(name, 0, 15, 'latin1')
  request.writeUInt16LE(0x1001, 16)
  if (ioctl(fd, 0x400454ca, request) < 0) {
    closeFd(fd)
    fail('TUNSETIFF')
  }
  return fd
}

export function close(fd: number): void {
  closeFd(fd)
}

/** The uid at the other end of a unix socket: SO_PEERCRED, unix(7). */
export function peerUid(fd: number): number {
  const cred = Buffer.alloc(12)
  const length = Buffer.from(Uint32Array.of(12).buffer)
  if (getsockopt(fd, 1, 17, cred, length) < 0) fail('SO_PEERCRED')
  return cred.readUInt32LE(4)
}

/** Hands `passed` over with one byte: SCM_RIGHTS, unix(7); layout for 64-bit Linux. */
export function sendDescriptor(fd: number, passed: number): void {
  const byte = Buffer.from([1])
  const iov = Buffer.alloc(16)
  const control = Buffer.alloc(24)
  const message = Buffer.alloc(56)
  iov.writeBigUInt64LE(koffi.address(byte), 0)
  iov.writeBigUInt64LE(1n, 8)
  control.writeBigUInt64LE(20n, 0)
  control.writeInt32LE(1, 8)
  control.writeInt32LE(1, 12)
  control.writeInt32LE(passed, 16)
  message.writeBigUInt64LE(koffi.address(iov), 16)
  message.writeBigUInt64LE(1n, 24)
  message.writeBigUInt64LE(koffi.address(control), 32)
  message.writeBigUInt64LE(24n, 40)
  if (sendmsg(fd, message, 0) < 0) fail('sendmsg')
}
