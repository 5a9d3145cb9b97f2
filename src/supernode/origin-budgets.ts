/**
 * What the whole site may burden each origin's host with: requests and bytes per second. The supernode's own reads wait
 * here, and peers that ask or read an origin themselves are leased slices of the same budget, so that no number of hosts
 * makes it more.
 */
import type { RateFlow } from "../base/rate-budget.ts";
import type { OriginBudget } from "../origin/origin-budget.ts";
import { RateGate } from "../peer/rate-gate.ts";
import type { OriginBudgetConfig } from "./config.ts";

/** A slice of a host's budget; null = nothing limits it. */
export interface OriginSlice {
  readonly amount: number | null;
  /** Not used by then, it is lost: the site goes on without it. */
  readonly forMs: number;
}

interface HostBudget {
  readonly requests: RateGate;
  readonly bytes: RateGate;
  /** Of all requests, the site's own and the leases. */
  readonly requestFlow: RateFlow;
  /** Of the bytes leased to peers. */
  readonly leaseFlow: RateFlow;
}

export class OriginBudgets implements OriginBudget {
  #configs: readonly OriginBudgetConfig[];
  readonly #nowMs: (() => number) | undefined;
  readonly #hosts = new Map<string, HostBudget>();

  /** @param nowMs monotonic; a test's clock */
  constructor(configs: readonly OriginBudgetConfig[], nowMs?: () => number) {
    this.#configs = configs;
    this.#nowMs = nowMs;
  }

  /** Effective at once, for hosts that are in use too. */
  setConfigs(configs: readonly OriginBudgetConfig[]): void {
    this.#configs = configs;
    for (const [host, budget] of this.#hosts) {
      const config = this.#configOf(host);
      budget.requests.setRate(config?.requestsPerSecond);
      budget.bytes.setRate(config?.bytesPerSecond);
    }
  }

  async request(url: string, signal: AbortSignal): Promise<void> {
    const budget = this.#budgetOf(hostOf(url));
    if (budget !== undefined) await budget.requests.passed(budget.requestFlow, 1, signal);
  }

  reading(url: string): ((bytes: number, signal: AbortSignal) => Promise<void>) | undefined {
    const host = hostOf(url);
    if (this.#budgetOf(host) === undefined) return undefined;
    let flow: RateFlow | undefined;
    return async (bytes, signal) => {
      const budget = this.#budgetOf(host);
      if (budget === undefined) return;
      flow ??= budget.bytes.flow("interactive");
      await budget.bytes.passed(flow, bytes, signal);
    };
  }

  /** A slice for a peer, about a twentieth of a second's worth, once the budget has it. @throws AppError ABORTED */
  async lease(host: string, kind: "requests" | "bytes", signal: AbortSignal): Promise<OriginSlice> {
    const budget = this.#budgetOf(host);
    const gate = kind === "requests" ? budget?.requests : budget?.bytes;
    const rate = gate?.bytesPerSecond;
    if (budget === undefined || gate === undefined || rate === undefined) return { amount: null, forMs: UNLIMITED_MS };
    const least = kind === "requests" ? 1 : SLICE_BYTES_MIN;
    const amount = Math.max(least, Math.min(SLICE_MAX, Math.floor(rate * SLICE_SECONDS)));
    await gate.passed(kind === "requests" ? budget.requestFlow : budget.leaseFlow, amount, signal);
    return { amount, forMs: SLICE_MS };
  }

  /** By host, for people. */
  view(): readonly { readonly host: string; readonly pattern: string; readonly requests: GateView; readonly bytes: GateView }[] {
    return [...this.#hosts].flatMap(([host, { requests, bytes }]) => {
      // As the configuration is now: a reload may have taken the budget away, or named another pattern first.
      const pattern = this.#configOf(host)?.host;
      return pattern === undefined ? [] : [{ host, pattern, requests: viewOf(requests), bytes: viewOf(bytes) }];
    });
  }

  close(): void {
    for (const { requests, bytes } of this.#hosts.values()) {
      requests.close();
      bytes.close();
    }
    this.#hosts.clear();
  }

  /** Undefined: no pattern names the host. */
  #budgetOf(host: string): HostBudget | undefined {
    const known = this.#hosts.get(host);
    const config = this.#configOf(host);
    if (config === undefined) return undefined;
    if (known !== undefined) return known;
    this.#makeRoom();
    const requests = new RateGate(config.requestsPerSecond, this.#nowMs);
    const bytes = new RateGate(config.bytesPerSecond, this.#nowMs);
    const made = { requests, bytes, requestFlow: requests.flow("interactive"), leaseFlow: bytes.flow("interactive") };
    this.#hosts.set(host, made);
    return made;
  }

  #configOf(host: string): OriginBudgetConfig | undefined {
    return this.#configs.find(({ host: pattern }) => matches(pattern, host));
  }

  /** A pattern may name any number of hosts: the one idle for longest, as far as is known, goes. */
  #makeRoom(): void {
    if (this.#hosts.size < HOST_COUNT_MAX) return;
    for (const [host, { requests, bytes }] of this.#hosts) {
      if (requests.waitingCount + bytes.waitingCount > 0) continue;
      this.#hosts.delete(host);
      return;
    }
  }
}

interface GateView {
  readonly limitPerSecond: number | null;
  readonly perSecond: number;
  readonly total: number;
  readonly waitingCount: number;
}

function viewOf(gate: RateGate): GateView {
  return {
    limitPerSecond: gate.bytesPerSecond ?? null,
    perSecond: Math.round(gate.recentBytesPerSecond),
    total: gate.passedBytes,
    waitingCount: gate.waitingCount,
  };
}

function hostOf(url: string): string {
  return URL.parse(url)?.host ?? "";
}

/** `*` is any host, `*.example.org` every host below it, anything else itself; with a port only that port. */
function matches(pattern: string, host: string): boolean {
  const port = PORT.exec(pattern)?.[0];
  // Both schemes' own ports are left out of URLs, and what is without one may be either.
  const isOwnPort = (port === ":80" || port === ":443") && !PORT.test(host);
  const wanted = isOwnPort ? pattern.slice(0, -port.length) : pattern;
  const name = port === undefined ? host.replace(PORT, "") : host;
  if (wanted === "*") return name !== "";
  return wanted.startsWith("*.") ? name.endsWith(wanted.slice(1)) : name === wanted;
}

/** Not the end of an IPv6 address, which has a bracket behind it. */
const PORT = /:\d+$/;
/** Twenty messages a second and host at most, however many peers: slices are given one after the other. */
const SLICE_SECONDS = 0.05;
const SLICE_BYTES_MIN = 4 * 1024;
const SLICE_MAX = 16 * 1024 * 1024;
const SLICE_MS = 5_000;
/** After this a peer asks again whether there is a budget now. */
const UNLIMITED_MS = 10_000;
const HOST_COUNT_MAX = 1_000;
