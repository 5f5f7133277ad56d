/** Flows of both families under one key of two numbers, without a string or an object for each packet. */
export class FlowTable<T> {
  readonly #byDestination = new Map<number, Map<number, T>>()
  readonly #words = new Map<number, unknown>()
  #nextId = 2 ** 32
  #size = 0

  get size(): number {
    return this.#size
  }

  /** A number for address and port; IPv6 addresses are interned as numbers above the IPv4 ones. */
  end(bytes: Uint8Array, at: number, length: number, port: number): number {
    return (length === 4 ? word(bytes, at) : this.#intern(bytes, at)) * 65536 + port
  }

  get(destination: number, source: number): T | undefined {
    return this.#byDestination.get(destination)?.get(source)
  }

  set(destination: number, source: number, flow: T): void {
    let inner = this.#byDestination.get(destination)
    if (!inner) this.#byDestination.set(destination, (inner = new Map()))
    if (!inner.has(source)) this.#size++
    inner.set(source, flow)
  }

  delete(destination: number, source: number): void {
    const inner = this.#byDestination.get(destination)
    if (!inner?.delete(source)) return
    this.#size--
    if (inner.size === 0) this.#byDestination.delete(destination)
  }

  *values(): Generator<T> {
    for (const inner of this.#byDestination.values()) yield* inner.values()
  }

  #intern(bytes: Uint8Array, at: number): number {
    let level = this.#words
    for (let i = 0; i < 3; i++) {
      const key = word(bytes, at + 4 * i)
      let next = level.get(key) as Map<number, unknown> | undefined
      if (!next) level.set(key, (next = new Map<number, unknown>()))
      level = next
    }
    const last = word(bytes, at + 12)
    const known = level.get(last) as number | undefined
    if (known !== undefined) return known
    level.set(last, this.#nextId)
    return this.#nextId++
  }
}

function word(bytes: Uint8Array, at: number): number {
  return (
    (((bytes[at] ?? 0) << 24) |
      ((bytes[at + 1] ?? 0) << 16) |
      ((bytes[at + 2] ?? 0) << 8) |
      (bytes[at + 3] ?? 0)) >>>
    0
  )
}
