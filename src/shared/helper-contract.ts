import { z } from 'zod'
import { parseSubnet } from './subnet.ts'

/** One request a line, one reply a line, over the helper's unix socket; the session ends with the socket. */
export const socketPath = '/run/tideway/helper.sock'
export const deviceName = 'tideway0'

const subnetText = z
  .string()
  .max(64)
  .refine((text) => {
    try {
      const subnet = parseSubnet(text)
      return subnet.bits >= (subnet.family === 4 ? 8 : 16)
    } catch {
      return false
    }
  }, 'not a subnet that may be routed')
const domain = z
  .string()
  .max(253)
  .regex(/^[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*$/)

/** The whole wish; applying it twice is applying it once. */
export const wishSchema = z.strictObject({
  routes: z.array(subnetText).max(1024),
  dns: z.strictObject({
    port: z.int().min(1024).max(65_535),
    suffixes: z.array(domain).max(512),
    search: z.array(domain).max(4),
  }),
})
export type Wish = z.infer<typeof wishSchema>

export const requestSchema = z.discriminatedUnion('verb', [
  z.strictObject({ verb: z.literal('open'), mtu: z.int().min(1280).max(65_535) }),
  z.strictObject({ verb: z.literal('apply'), wish: wishSchema }),
  z.strictObject({ verb: z.literal('take'), ticket: z.string().length(32) }),
  z.strictObject({ verb: z.literal('stop') }),
])
export type Request = z.infer<typeof requestSchema>

export const replySchema = z.union([
  z.object({
    ok: z.literal(true),
    ticket: z.string().optional(),
    address: z.string().optional(),
    dnsMode: z.enum(['resolved', 'nft']).optional(),
  }),
  z.object({ ok: z.literal(false), step: z.string(), detail: z.string() }),
])
export type Reply = z.infer<typeof replySchema>
