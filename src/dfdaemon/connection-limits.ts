/** What any connection of a client to this daemon is held to, whether it speaks to the mirror or through the proxy. */
export const CONNECTION_LIMITS = {
  /** Tokens of some registries are of 10 KiB and more; Node's default is 16 KiB for all headers. Of answers through the proxy, too. */
  maxHeaderSize: 64 * 1024,
  /** From the first byte of a request to the end of its head, ms. */
  headersTimeout: 30_000,
  /** None, for an upload through the proxy takes as long as it takes: what stands still is ended by the idle time. */
  requestTimeout: 0,
  /** Longer than the 30 s for which Go's clients keep a connection: so it is never us who close one in use; ms. */
  keepAliveTimeout: 75_000,
} as const;

/** A connection on which nothing moves for so long belongs to nobody: containerd gives up after 5 min. */
export const IDLE_MS_MAX: number = 10 * 60_000;

/** Of all clients together, tunnels included: further ones are closed at once. */
export const CONNECTIONS_MAX = 8192;
