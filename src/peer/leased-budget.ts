/** A peer's part of the site's budgets for origins: slices asked of the supernode; free while none can be reached. */
import { AppError } from "../base/errors.ts";
import type { OriginBudget } from "../origin/origin-budget.ts";

type Kind = "requests" | "bytes";

/** A slice as the supernode gives it; null = nothing limits the host. */
export interface Slice {
  readonly amount: number | null;
  readonly forMs: number;
}

export interface LeasedBudgetDeps {
  /** Asks the supernode. Undefined: there is none to be asked, or it went away. Never rejects. */
  readonly lease: (host: string, kind: Kind) => Promise<Slice | undefined>;
  /** Monotonic. */
  readonly nowMs: () => number;
}

interface Account {
  /** What is left of the slice; infinite while nothing limits the host. */
  left: number;
  untilMs: number;
  asking: Promise<void> | undefined;
}

export class LeasedBudget implements OriginBudget {
  readonly #deps: LeasedBudgetDeps;
  readonly #accounts = new Map<string, Account>();

  constructor(deps: LeasedBudgetDeps) {
    this.#deps = deps;
  }

  request(url: string, signal: AbortSignal): Promise<void> {
    return this.#spend(hostOf(url), "requests", 1, signal);
  }

  reading(url: string): (bytes: number, signal: AbortSignal) => Promise<void> {
    const host = hostOf(url);
    return (bytes, signal) => this.#spend(host, "bytes", bytes, signal);
  }

  /** Asks for slices until there is enough. */
  async #spend(host: string, kind: Kind, amount: number, signal: AbortSignal): Promise<void> {
    const account = this.#account(`${kind} ${host}`);
    for (let owed = amount; ; ) {
      if (signal.aborted) throw new AppError("ABORTED", "given up while waiting for leave to ask the origin");
      if (this.#deps.nowMs() >= account.untilMs) account.left = 0;
      const taken = Math.min(owed, account.left);
      account.left -= taken;
      owed -= taken;
      if (owed === 0) return;
      // All who wait share one question, and what it brings.
      account.asking ??= this.#ask(account, host, kind).finally(() => (account.asking = undefined));
      // oxlint-disable-next-line no-await-in-loop -- slice by slice
      await untilAborted(account.asking, signal);
    }
  }

  async #ask(account: Account, host: string, kind: Kind): Promise<void> {
    const slice = await this.#deps.lease(host, kind);
    account.left = slice?.amount ?? Number.POSITIVE_INFINITY;
    account.untilMs = this.#deps.nowMs() + (slice?.forMs ?? ALONE_MS);
  }

  #account(key: string): Account {
    let account = this.#accounts.get(key);
    if (account === undefined) {
      account = { left: 0, untilMs: 0, asking: undefined };
      this.#accounts.set(key, account);
      const [oldest] = this.#accounts.keys();
      if (this.#accounts.size > ACCOUNT_COUNT_MAX && oldest !== undefined) this.#accounts.delete(oldest);
    }
    return account;
  }
}

async function untilAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  const onAbort = (): void => resolve();
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function hostOf(url: string): string {
  return URL.parse(url)?.host ?? "";
}

/** Without a supernode: how soon one that is back is asked. */
const ALONE_MS = 1_000;
const ACCOUNT_COUNT_MAX = 1_000;
