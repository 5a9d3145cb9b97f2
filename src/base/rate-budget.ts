/**
 * One rate for all tasks together, on a virtual clock: paced, fair, with priorities, and a limit per task on top.
 *
 * Whoever wants to move bytes asks, waits in the queue of its flow (one per task), and is granted in turn. Start-time fair
 * queueing on two levels: between priorities by weight, within a priority equally between tasks, however many
 * connections each has. A grant is charged to one pace, so the rate holds exactly whatever the number of askers.
 * Source: Goyal, Vin, Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
 */
import { PRIORITIES, type Priority } from "./priority.ts";

/** A task's place at one budget. Held by its owner; the budget knows it only while something waits. */
export interface RateFlow {
  readonly priority: Priority;
  /** This task's own limit, > 0; undefined = only the budget's. Set by {@link RateBudget.setFlowLimit}. */
  readonly limitBytesPerSecond: number | undefined;
  /** When last something of this flow had to wait; −∞ = never. */
  readonly waitedMs: number;
}

/** One asker. `go` is the caller's; the budget never calls it. */
export interface RateRequest {
  readonly flow: RateFlow;
  readonly bytes: number;
  readonly go: () => void;
}

interface Request extends RateRequest {
  readonly flow: Flow;
  readonly askedMs: number;
}

class Flow implements RateFlow {
  priority: Priority;
  limitBytesPerSecond: number | undefined;
  waitedMs = Number.NEGATIVE_INFINITY;
  /** Its own pace allows the next grant from then on. */
  freeMs = 0;
  /** Start tag of its next grant. */
  tag = 0;
  readonly queue: Request[] = [];

  constructor(priority: Priority) {
    this.priority = priority;
  }
}

interface PriorityClass {
  readonly weight: number;
  tag: number;
  /** Start tag of the flow granted last: virtual time among the flows. */
  virtual: number;
  /** Flows with something waiting. */
  readonly flows: Flow[];
}

export class RateBudget {
  #bytesPerSecond: number | undefined;
  #freeMs = 0;
  #virtual = 0;
  #waitingCount = 0;
  readonly #classes: readonly PriorityClass[] = PRIORITIES.map((_, rank) => ({
    weight: PRIORITY_STEP ** (PRIORITIES.length - 1 - rank),
    tag: 0,
    virtual: 0,
    flows: [],
  }));

  /** @param bytesPerSecond the rate, > 0; `undefined` is no limit */
  constructor(bytesPerSecond: number | undefined) {
    this.#bytesPerSecond = bytesPerSecond;
  }

  get bytesPerSecond(): number | undefined {
    return this.#bytesPerSecond;
  }

  /** Requests not granted yet. */
  get waitingCount(): number {
    return this.#waitingCount;
  }

  /** Into how many parts a chunk goes so that each task that waits, and each asker of one task, has the same. */
  partCount(flow: RateFlow): number {
    const own = flow as Flow;
    let others = 0;
    for (const { flows } of this.#classes) others += flows.length;
    if (own.queue.length > 0) others--;
    return (others + 1) * (own.queue.length + 1);
  }

  /** Changes the rate from `nowMs` on; what is owed is repaid at the new rate, but for what would leave a gap in its first second. */
  setRate(bytesPerSecond: number | undefined, nowMs: number): void {
    this.#freeMs = repaidMs(this.#freeMs, this.#bytesPerSecond, bytesPerSecond, nowMs);
    this.#bytesPerSecond = bytesPerSecond;
  }

  flow(priority: Priority): RateFlow {
    return new Flow(priority);
  }

  /** Gives the flow another priority, what waits in it included. */
  setFlowPriority(flow: RateFlow, priority: Priority): void {
    const own = flow as Flow;
    if (own.priority === priority) return;
    if (own.queue.length > 0) this.#leave(own);
    own.priority = priority;
    // Tags of one priority mean nothing in another.
    own.tag = 0;
    if (own.queue.length > 0) this.#enter(own);
  }

  setFlowLimit(flow: RateFlow, bytesPerSecond: number | undefined, nowMs: number): void {
    const own = flow as Flow;
    own.freeMs = repaidMs(own.freeMs, own.limitBytesPerSecond, bytesPerSecond, nowMs);
    own.limitBytesPerSecond = bytesPerSecond;
  }

  /** False: nothing holds this flow back, and nobody need ask for it. */
  limits(flow: RateFlow): boolean {
    return this.#bytesPerSecond !== undefined || flow.limitBytesPerSecond !== undefined;
  }

  /**
   * How much to ask for at a time: {@link CHUNK_MS} of the rate, so that a second is many chunks and tasks take turns
   * often; never less than `bytesMin`. Infinity without a limit.
   */
  chunkBytes(flow: RateFlow, bytesMin: number): number {
    const rate = Math.min(this.#bytesPerSecond ?? Number.POSITIVE_INFINITY, flow.limitBytesPerSecond ?? Number.POSITIVE_INFINITY);
    return Math.max(bytesMin, Math.floor((rate * CHUNK_MS) / 1000));
  }

  /** Puts a request into its flow's queue; {@link grant} gives it back when its turn has come. */
  request(flow: RateFlow, bytes: number, go: () => void, nowMs: number): RateRequest {
    const own = flow as Flow;
    const request: Request = { flow: own, bytes, go, askedMs: nowMs };
    if (own.queue.length === 0) this.#enter(own);
    own.queue.push(request);
    this.#waitingCount++;
    return request;
  }

  /** Takes a request back. @returns false when it was granted, or taken back, before */
  cancel(request: RateRequest): boolean {
    const { flow } = request as Request;
    const at = flow.queue.indexOf(request as Request);
    if (at < 0) return false;
    flow.queue.splice(at, 1);
    this.#removed(flow);
    return true;
  }

  /** Charges what has moved without asking. Others wait the longer for it. */
  spend(bytes: number, nowMs: number): void {
    this.#freeMs = chargedMs(this.#freeMs, this.#bytesPerSecond, bytes, nowMs, nowMs);
  }

  /** The request whose turn it is now, taken out and charged; undefined when none may go yet. */
  grant(nowMs: number): RateRequest | undefined {
    if (this.#waitingCount === 0 || this.#freeMs > nowMs) return undefined;
    let among: PriorityClass | undefined;
    let flow: Flow | undefined;
    for (const candidates of this.#classes) {
      const first = firstOf(candidates.flows, nowMs);
      if (first === undefined || (among !== undefined && candidates.tag >= among.tag)) continue;
      among = candidates;
      flow = first;
    }
    if (among === undefined || flow === undefined) return undefined;
    const request = flow.queue.shift() as Request;
    const { bytes, askedMs } = request;
    // A tag that lags far behind belongs to who was held back by a limit of his own: that is nothing saved up.
    this.#keepUp(among);
    this.#virtual = Math.max(this.#virtual, among.tag);
    among.tag += bytes / among.weight;
    this.#keepUpWith(among, flow);
    among.virtual = Math.max(among.virtual, flow.tag);
    flow.tag += bytes;
    // Each pace could have served it since the other one, and the asker, allowed it.
    const readyMs = Math.max(askedMs, flow.freeMs);
    flow.freeMs = chargedMs(flow.freeMs, flow.limitBytesPerSecond, bytes, nowMs, Math.max(askedMs, this.#freeMs));
    this.#freeMs = chargedMs(this.#freeMs, this.#bytesPerSecond, bytes, nowMs, readyMs);
    if (askedMs < nowMs) flow.waitedMs = nowMs;
    this.#removed(flow);
    return request;
  }

  /** When {@link grant} next has something to give; undefined while nothing waits. */
  nextDeadlineMs(): number | undefined {
    if (this.#waitingCount === 0) return undefined;
    let earliestMs = Number.POSITIVE_INFINITY;
    for (const { flows } of this.#classes) for (const { freeMs } of flows) earliestMs = Math.min(earliestMs, freeMs);
    return Math.max(earliestMs, this.#freeMs);
  }

  #classOf({ priority }: Flow): PriorityClass {
    return this.#classes[PRIORITIES.indexOf(priority)] as PriorityClass;
  }

  #enter(flow: Flow): void {
    const among = this.#classOf(flow);
    if (among.flows.length === 0) this.#keepUp(among);
    this.#keepUpWith(among, flow);
    among.flows.push(flow);
  }

  /**
   * Who was away has saved nothing up but a moment: one whose next request follows on its last grant is away between the
   * two, and would lose its turn each time to who has several waiting.
   */
  #keepUp(among: PriorityClass): void {
    among.tag = Math.max(among.tag, this.#virtual - this.#awayBytes / among.weight);
  }

  #keepUpWith(among: PriorityClass, flow: Flow): void {
    flow.tag = Math.max(flow.tag, among.virtual - this.#awayBytes);
  }

  get #awayBytes(): number {
    return ((this.#bytesPerSecond ?? 0) * AWAY_MS) / 1000;
  }

  #leave(flow: Flow): void {
    const { flows } = this.#classOf(flow);
    flows.splice(flows.indexOf(flow), 1);
  }

  #removed(flow: Flow): void {
    this.#waitingCount--;
    if (flow.queue.length === 0) this.#leave(flow);
  }
}

/** The flow whose turn it is, of those that their own limit does not hold back. */
function firstOf(flows: readonly Flow[], nowMs: number): Flow | undefined {
  let first: Flow | undefined;
  for (const flow of flows) {
    if (flow.freeMs <= nowMs && (first === undefined || flow.tag < first.tag)) first = flow;
  }
  return first;
}

/**
 * A pace after one more charge. `readyMs`: since when the pace alone was waited for. Since then a late timer is caught up
 * with; from the idle time before, hardly anything is saved up.
 */
function chargedMs(freeMs: number, rate: number | undefined, bytes: number, nowMs: number, readyMs: number): number {
  if (rate === undefined) return 0;
  const fromMs = Math.max(freeMs, readyMs - IDLE_CREDIT_MS, nowMs - LATE_CREDIT_MS);
  return fromMs + (bytes * 1000) / rate;
}

/**
 * A pace after a change of its rate. A chunk of the old rate, just moved, would take a good part of a second at one far
 * lower: what it was ahead by counts as moved under the old rate, so that the first second of the new one is right, too.
 */
function repaidMs(freeMs: number, before: number | undefined, after: number | undefined, nowMs: number): number {
  if (before === undefined || after === undefined) return 0;
  const owedMs = freeMs - nowMs;
  const stretchedMs = (owedMs * before) / after;
  if (owedMs <= 0) return freeMs;
  return nowMs + (stretchedMs <= owedMs ? stretchedMs : Math.max(owedMs, Math.min(stretchedMs, STRETCHED_MS_MAX)));
}

/** While both want more than there is, a priority gets this many times what the next lower one gets. */
export const PRIORITY_STEP = 8;
/** A hundred grants a second at most: 1 % of a second each, and a load that no machine notices. */
const CHUNK_MS = 10;
/** An absence that costs no turn: longer than a late timer and an offer's way there and back, far below a second. */
const AWAY_MS = 30;
/** Below 5 % of a second. */
const STRETCHED_MS_MAX = 30;
/** Together with a chunk below 5 % of a second. */
const IDLE_CREDIT_MS = 30;
/** A timer that comes later than this has cost rate: caught up, the next second would have too much. */
const LATE_CREDIT_MS = 50;
