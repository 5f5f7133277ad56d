/** DNS messages: a strict parser for questions, an encoder for answers. @see RFC 1035, RFC 6891 */
export const A = 1
export const CNAME = 5
export const SOA = 6
export const PTR = 12
export const AAAA = 28
export const SRV = 33
export const NOERROR = 0
export const SERVFAIL = 2
export const NXDOMAIN = 3

export interface Question {
  readonly id: number
  /** As asked, without the last dot. */
  readonly name: string
  readonly type: number
  readonly class: number
  /** End of the question in the message, in bytes. */
  readonly end: number
  /** The sender's UDP payload size (EDNS), or undefined. */
  readonly payload: number | undefined
}

export type Answer =
  | { type: typeof A | typeof AAAA; address: Uint8Array }
  | { type: typeof CNAME | typeof PTR; name: string }
  | { type: typeof SRV; port: number; target: string }

/** @returns undefined for anything but one well-formed question of opcode QUERY */
export function parseQuestion(message: Uint8Array): Question | undefined {
  if (message.length < 17 || message.length > 4096) return undefined
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  if ((view.getUint16(2) & 0xf800) !== 0 || view.getUint16(4) !== 1 || view.getUint16(6) !== 0)
    return undefined
  const labels: string[] = []
  let at = 12
  for (;;) {
    const length = message[at]
    if (length === undefined || length > 63 || at - 12 + length > 254) return undefined
    if (length === 0) break
    if (at + 1 + length >= message.length) return undefined
    labels.push(Buffer.from(message.subarray(at + 1, at + 1 + length)).toString('latin1'))
    at += 1 + length
  }
  if (at + 5 > message.length) return undefined
  const end = at + 5
  const additional = view.getUint16(10)
  const opt =
    additional > 0 &&
    end + 11 <= message.length &&
    message[end] === 0 &&
    view.getUint16(end + 1) === 41
  return {
    id: view.getUint16(0),
    name: labels.join('.'),
    type: view.getUint16(at + 1),
    class: view.getUint16(at + 3),
    end,
    payload: opt ? Math.max(512, view.getUint16(end + 3)) : undefined,
  }
}

export function encodeName(name: string): Uint8Array {
  const labels = name === '' ? [] : name.split('.').map((l) => Buffer.from(l, 'latin1'))
  return Buffer.concat([...labels.flatMap((l) => [Uint8Array.of(l.length), l]), Uint8Array.of(0)])
}

const ttl = 5

/**
 * Answers `question` with records owned by the name as asked; without records, with an SOA of `zone`.
 * @param limit bytes; what does not fit is left out and TC is set
 */
export function encodeAnswer(
  query: Uint8Array,
  question: Question,
  rcode: number,
  answers: readonly Answer[],
  limit: number,
): Uint8Array {
  const head = Buffer.alloc(question.end)
  Buffer.from(query.buffer, query.byteOffset, query.length).copy(head, 0, 0, question.end)
  const opt =
    question.payload === undefined
      ? Buffer.alloc(0)
      : Buffer.from([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0])
  const records: Buffer[] = []
  let size = head.length + opt.length
  let truncated = false
  for (const answer of answers) {
    const record = encodeRecord(answer)
    if (size + record.length > limit) {
      truncated = true
      break
    }
    size += record.length
    records.push(record)
  }
  const authority = answers.length === 0 && rcode !== SERVFAIL ? soa() : Buffer.alloc(0)
  head.writeUInt16BE(0x8480 | (head.readUInt16BE(2) & 0x0100) | (truncated ? 0x0200 : 0) | rcode, 2)
  head.writeUInt16BE(records.length, 6)
  head.writeUInt16BE(authority.length > 0 ? 1 : 0, 8)
  head.writeUInt16BE(opt.length > 0 ? 1 : 0, 10)
  return Buffer.concat([head, ...records, authority, opt])
}

function encodeRecord(answer: Answer): Buffer {
  if ('address' in answer) return record([0xc0, 12], answer.type, answer.address)
  if (answer.type !== SRV) return record([0xc0, 12], answer.type, encodeName(answer.name))
  const head = Buffer.alloc(6)
  head.writeUInt16BE(100, 2)
  head.writeUInt16BE(answer.port, 4)
  return record([0xc0, 12], SRV, Buffer.concat([head, encodeName(answer.target)]))
}

function record(owner: ArrayLike<number>, type: number, data: Uint8Array): Buffer {
  const fixed = Buffer.alloc(10)
  fixed.writeUInt16BE(type, 0)
  fixed.writeUInt16BE(1, 2)
  fixed.writeUInt32BE(ttl, 4)
  fixed.writeUInt16BE(data.length, 8)
  return Buffer.concat([Uint8Array.from(owner), fixed, data])
}

function soa(): Buffer {
  const numbers = Buffer.alloc(20)
  ;[1, 7200, 1800, 86400, ttl].forEach((n, i) => numbers.writeUInt32BE(n, 4 * i))
  return record(
    encodeName('cluster.local'),
    SOA,
    Buffer.concat([
      encodeName('ns.dns.cluster.local'),
      encodeName('hostmaster.cluster.local'),
      numbers,
    ]),
  )
}
