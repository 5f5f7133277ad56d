/** What became of a dial; each has its own packet (dataplane.md §3.5). */
export type Outcome = 'refused' | 'host-unreachable' | 'net-unreachable' | 'prohibited'

/** The application's end of a flow, for whoever dials. */
export interface AppEnd {
  /** The dial succeeded: the SYN is answered. */
  accept(): void
  /** The dial failed: the SYN is answered with what the failure was. */
  refuse(outcome: Outcome): void
  /** Queues bytes for the application; the array must not change afterwards. */
  write(bytes: Uint8Array): void
  /** No bytes follow: FIN after the queue. */
  end(): void
  reset(): void
  /** `count` bytes from the application have been taken on: the window opens by as much. */
  consumed(count: number): void
  /** Bytes queued and not yet acknowledged by the application's kernel. */
  readonly queued: number
}

/** The cluster's end of a flow, for the netstack. */
export interface RemoteEnd {
  /** Bytes from the application; valid only during the call. */
  data(bytes: Uint8Array): void
  /** The application has ended its direction. */
  end(): void
  /** The flow is gone: reset, given up, or never wanted. */
  reset(): void
  /** The application's kernel has acknowledged bytes: `AppEnd.queued` has shrunk. */
  drained(): void
}

export interface Destination {
  readonly family: 4 | 6
  readonly address: Uint8Array
  readonly port: number
}

export interface NetstackOptions {
  readonly mtu: number
  /** Milliseconds of a clock that never goes back. */
  now(): number
  /** 32 random bits, for initial sequence numbers. */
  random(): number
  /** Sends a packet to the kernel; valid only during the call. */
  write(packet: Uint8Array): void
  dial(destination: Destination, app: AppEnd): RemoteEnd
}
