/**
 * Random lives of one peer. A model of the world turns commands into inputs (answers to what was really offered, ends of
 * what really runs, and nonsense between), checks every effect, and keeps the log, which is then replayed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { PeerId, TaskId } from "../protocol/ids.ts";
import { brokenInvariants } from "./broken-invariants.ts";
import { DEFAULT_SWARM_CONFIG, Swarm, type SwarmConfig, type SwarmEffect, type SwarmInput } from "./index.ts";
import { OTHER_TASK, setOf, TASK } from "./swarm-fixture.test.ts";

const PIECES = 40;
const LINKS = 5;
/** Of one task short, of the other long: they share the places. */
const pieceLengthOf = (taskId: TaskId): number => (taskId === OTHER_TASK ? 65_536 : 1_048_576);
const CONFIG: SwarmConfig = { ...DEFAULT_SWARM_CONFIG, uploadCount: 2, verifyCountMax: 3 };

interface Command {
  readonly verb: (typeof VERBS)[number];
  readonly linkId: number;
  readonly taskId: TaskId;
  readonly piece: number;
  /** Chooses among what is under way. */
  readonly pick: number;
  readonly afterMs: number;
}

const VERBS = [
  "open", "close", "link", "unlink", "join", "join", "joinMute", "leave", "has", "has", "wants", "status", "offer", "offer", "offer",
  "answerYes", "answerYes", "answerYes", "answerNo", "progressSend", "finishSend", "finishSend", "cancelSend",
  "progressReceive", "finishReceive", "finishReceive", "withdraw", "store", "store", "reject", "lose", "own", "perish", "perish", "remoteLoses", "reader", "length",
  "kernel", "nonsense", "wait", "wait",
] as const;

const commands: fc.Arbitrary<readonly Command[]> = fc.array(
  fc.record({
    verb: fc.constantFrom(...VERBS),
    linkId: fc.integer({ min: 1, max: LINKS }),
    taskId: fc.constantFrom(TASK, TASK, TASK, OTHER_TASK),
    piece: fc.nat({ max: PIECES - 1 }),
    pick: fc.nat({ max: 1_000 }),
    afterMs: fc.constantFrom(0, 0, 0, 1, 5, 50, 400, 2_500),
  }),
  { minLength: 40, maxLength: 250, size: "max" },
);

interface Transfer {
  readonly linkId: number;
  readonly taskId: TaskId;
  readonly piece: number;
}

/** What has been told and done, as an observer outside knows it. */
class World {
  readonly swarm: Swarm;
  readonly log: { readonly input: () => SwarmInput; readonly nowMs: number }[] = [];
  readonly said: string[] = [];
  nowMs = 0;
  readonly #held = new Map<TaskId, Set<number>>();
  /** Who gave a bad piece, by link (which is by peer here) and task: for as long as the task is open. */
  readonly #liars = new Set<string>();
  readonly #joined = new Map<string, { receives: boolean; isolated: boolean; readonly told: Set<number> }>();
  readonly #linked = new Set<number>();
  #goneBytes = 0;
  #offers: Transfer[] = [];
  #agreed: Transfer[] = [];
  #sends: Transfer[] = [];
  #receives: Transfer[] = [];
  #verifying: Transfer[] = [];

  constructor(seed: number) {
    this.swarm = new Swarm(CONFIG, seed);
  }

  run(command: Command): void {
    this.nowMs += command.afterMs;
    for (const input of this.#inputs(command)) this.#feed(input);
  }

  /** Inputs are made anew for each replay: the brain takes over the sets in them. */
  #feed(input: () => SwarmInput): void {
    this.log.push({ input, nowMs: this.nowMs });
    const made = input();
    this.#learn(made);
    const effects = this.swarm.step(made, this.nowMs);
    this.said.push(JSON.stringify(effects));
    for (const effect of effects) this.#check(effect);
    this.#checkClaims();
    assert.deepEqual(brokenInvariants(this.swarm.snapshot(), CONFIG), []);
    const dueMs = this.swarm.nextDeadlineMs();
    if (made.type === "deadlineReached") assert.ok(dueMs === undefined || dueMs > this.nowMs, "W8: a deadline kept is gone");
    const unfinished = this.swarm.snapshot().tasks.some(({ haveCount, pieceCount }) => haveCount < (pieceCount ?? PIECES));
    if (unfinished) assert.notEqual(dueMs, undefined, "W8: nobody waits without a deadline");
  }

  /** Whoever can offer knows of nothing as claimed that will not be here in time. */
  #checkClaims(): void {
    for (const { taskId, incoming } of this.swarm.snapshot().tasks) {
      const coming = new Set(incoming.filter(({ late, state }) => !late || state === "verifying").map(({ piece }) => piece));
      for (const [key, remote] of this.#joined) {
        if (!key.endsWith(taskId) || remote.isolated) continue;
        for (const piece of remote.told) assert.ok(coming.has(piece) || this.#held.get(taskId)?.has(piece), `W10: ${key} thinks that ${piece} is claimed`);
      }
    }
  }

  #inputs({ verb, linkId, taskId, piece, pick, afterMs }: Command): readonly (() => SwarmInput)[] {
    const key = `${linkId} ${taskId}`;
    const one = (input: SwarmInput): readonly (() => SwarmInput)[] => [() => input];
    const about = (type: "sendCancelled" | "sendFinished" | "receiveCancelled" | "receiveFinished" | "offerAccepted", from: Transfer[]) => {
      const transfer = take(from, pick);
      if (transfer === undefined) return [];
      return one({ type, ...transfer });
    };
    switch (verb) {
      case "open": {
        if (this.#held.has(taskId)) return [];
        const have = Array.from({ length: PIECES }, (_, i) => i).filter((i) => pick % 3 === 0 || (i * 7 + pick) % 5 === 0);
        const pieceCount = pick % 2 === 0 ? PIECES : undefined;
        return [() => ({ type: "taskOpened", taskId, pieceCount, pieceLengthBytes: pieceLengthOf(taskId), have: setOf(have), priority: "normal" })];
      }
      case "close":
        return pick % 4 === 0 ? one({ type: "taskClosed", taskId }) : [];
      case "link":
        return this.#linked.has(linkId) ? [] : one({ type: "linkOpened", linkId, peerId: `peer-${linkId}` as PeerId });
      case "unlink":
        return pick % 3 === 0 ? [...one({ type: "linkClosed", linkId }), ...one({ type: "neighbourLost", taskId, peerId: `peer-${linkId}` as PeerId })] : [];
      case "join":
      case "joinMute": {
        const have = Array.from({ length: PIECES }, (_, i) => i).filter((i) => (i * 13 + pick) % 7 < 2);
        return [() => ({ type: "remoteJoined", linkId, taskId, have: setOf(have), seed: false, receives: verb === "join", wants: pick % 2 === 0 ? [pick % PIECES] : [] })];
      }
      case "leave":
        return pick % 3 === 0 ? one({ type: "remoteLeft", linkId, taskId }) : [];
      case "has":
        return one({ type: "remoteHas", linkId, taskId, pieces: [piece, (piece + pick) % PIECES] });
      case "wants":
        return one({ type: "remoteWants", linkId, taskId, pieces: [piece, (piece + 1) % PIECES, (piece + pick) % PIECES] });
      case "status":
        return one({ type: "remoteStatus", linkId, incoming: pick % 4, capacity: 3 });
      case "offer":
        return this.#joined.has(key) ? one({ type: "offered", linkId, taskId, pieces: [...new Set([piece, (piece + pick) % PIECES])] }) : [];
      case "answerYes":
        return about("offerAccepted", this.#offers);
      case "answerNo": {
        const offer = take(this.#offers, pick);
        const reason = (["have", "taking", "busy", "unwanted"] as const)[pick % 4] ?? "busy";
        return offer === undefined ? [] : one({ type: "offerDeclined", ...offer, reason });
      }
      case "progressSend":
      case "progressReceive": {
        const moving = verb === "progressSend" ? this.#sends : this.#receives;
        const transfer = moving[pick % Math.max(1, moving.length)];
        const type = verb === "progressSend" ? "sendProgressed" : "receiveProgressed";
        return transfer === undefined ? [] : one({ type, ...transfer, bytes: 10_000 });
      }
      case "finishSend":
        return about("sendFinished", this.#sends);
      case "cancelSend":
        return about("sendCancelled", this.#sends);
      case "finishReceive": {
        const [transfer] = this.#receives.slice(pick % Math.max(1, this.#receives.length));
        return transfer === undefined ? [] : one({ type: "receiveFinished", ...transfer });
      }
      case "withdraw":
        return about("receiveCancelled", this.#receives);
      case "store":
      case "reject":
      case "lose": {
        const transfer = take(this.#verifying, pick);
        if (transfer === undefined) return [];
        if (verb === "reject") return one({ type: "pieceRejected", ...transfer });
        return one({ type: verb === "store" ? "pieceStored" : "pieceLost", taskId: transfer.taskId, piece: transfer.piece });
      }
      case "own":
        return one({ type: "pieceStored", taskId, piece });
      case "perish":
        return one({ type: "piecesLost", taskId, pieces: [piece, (piece + pick) % PIECES] });
      case "remoteLoses":
        return one({ type: "remoteLost", linkId, taskId, pieces: [piece, (piece + pick) % PIECES] });
      case "reader":
        return one({ type: "readerMoved", taskId, readerId: pick % 2, piece: pick % 5 === 0 ? undefined : piece });
      case "length":
        return one({ type: "lengthKnown", taskId, pieceCount: PIECES });
      case "kernel": {
        const heldBytes = pick * 1_000;
        this.#goneBytes += afterMs * 1_000;
        return one({ type: "uplinkSampled", handedBytes: this.#goneBytes + heldBytes, links: pick === 0 ? [] : [{ heldBytes, roundTripMs: pick % 200, leastRoundTripMs: 1 }] });
      }
      case "nonsense": {
        const types = ["offerAccepted", "sendCancelled", "receiveCancelled", "sendFinished", "receiveFinished"] as const;
        const type = types[pick % types.length] ?? "sendFinished";
        return one({ type, linkId, taskId, piece });
      }
      case "wait":
        return this.#deadlines(pick);
    }
  }

  #deadlines(pick: number): readonly (() => SwarmInput)[] {
    const endMs = this.nowMs + pick * 3;
    for (let dueMs = this.swarm.nextDeadlineMs(); dueMs !== undefined && dueMs <= endMs; dueMs = this.swarm.nextDeadlineMs()) {
      this.nowMs = Math.max(this.nowMs, dueMs);
      this.#feed(() => ({ type: "deadlineReached" }));
    }
    return [];
  }

  #learn(input: SwarmInput): void {
    switch (input.type) {
      case "taskOpened":
        this.#held.set(input.taskId, new Set(input.have));
        return;
      case "taskClosed":
        this.#held.delete(input.taskId);
        this.#forget((transfer) => transfer.taskId === input.taskId);
        for (const keyed of [this.#joined, this.#liars]) for (const key of keyed.keys()) if (key.endsWith(input.taskId)) keyed.delete(key);
        return;
      case "linkOpened":
        this.#linked.add(input.linkId);
        return;
      case "linkClosed":
        this.#linked.delete(input.linkId);
        this.#forget((transfer) => transfer.linkId === input.linkId);
        for (const key of this.#joined.keys()) if (key.startsWith(`${input.linkId} `)) this.#joined.delete(key);
        return;
      case "remoteJoined":
        if (!this.#linked.has(input.linkId) || !this.#held.has(input.taskId)) return;
        this.#forget((transfer) => transfer.linkId === input.linkId && transfer.taskId === input.taskId);
        this.#joined.set(`${input.linkId} ${input.taskId}`, { receives: input.receives, isolated: !input.seed && this.#liars.has(`${input.linkId} ${input.taskId}`), told: new Set(this.#held.get(input.taskId)) });
        return;
      case "remoteLeft":
        this.#forget((transfer) => transfer.linkId === input.linkId && transfer.taskId === input.taskId);
        this.#joined.delete(`${input.linkId} ${input.taskId}`);
        return;
      case "pieceStored":
        this.#held.get(input.taskId)?.add(input.piece);
        return;
      case "piecesLost":
        for (const piece of input.pieces) this.#held.get(input.taskId)?.delete(piece);
        return;
      case "pieceRejected": {
        const remote = this.#joined.get(`${input.linkId} ${input.taskId}`);
        // Also by a link that has closed, as long as the piece was being looked at.
        const isKnown = this.#linked.has(input.linkId) || this.swarm.snapshot().tasks.some(({ taskId, incoming }) => taskId === input.taskId && incoming.some((transfer) => same({ ...transfer, taskId }, input)));
        if (this.#held.has(input.taskId) && isKnown) this.#liars.add(`${input.linkId} ${input.taskId}`);
        if (remote !== undefined) remote.isolated = true;
        return;
      }
      case "offerAccepted":
        this.#agreed.push(input);
        return;
      case "receiveFinished": {
        const at = this.#receives.findIndex((transfer) => same(transfer, input));
        if (at >= 0) this.#verifying.push(...this.#receives.splice(at, 1));
        return;
      }
      default:
    }
  }

  #check(effect: SwarmEffect): void {
    switch (effect.type) {
      case "sendOffer":
      case "startSend": {
        const remote = this.#joined.get(`${effect.linkId} ${effect.taskId}`);
        const pieces = effect.type === "sendOffer" ? effect.pieces : [effect.piece];
        for (const piece of pieces) assert.ok(this.#held.get(effect.taskId)?.has(piece), `W1: ${effect.type} of ${piece}, which is not held`);
        assert.ok(remote?.receives === true && !remote.isolated, `W6: ${effect.type} to one who may not have it`);
        if (effect.type === "sendOffer") {
          assert.ok(pieces.length >= 1 && pieces.length <= CONFIG.candidateCount && new Set(pieces).size === pieces.length);
          // The neighbour's choice is as good as any.
          const piece = pieces[effect.linkId % pieces.length] as number;
          this.#offers.push(plain({ ...effect, piece }));
        } else {
          assert.ok(this.#agreed.some((transfer) => same(transfer, effect)), "W7: nothing is sent that was not accepted");
          this.#sends.push(plain(effect));
        }
        return;
      }
      case "sendAccept":
        assert.ok(!this.#held.get(effect.taskId)?.has(effect.piece), "W3: what is held is not accepted");
        this.#receives.push(plain(effect));
        return;
      case "sendHave":
        for (const piece of effect.pieces) this.#joined.get(`${effect.linkId} ${effect.taskId}`)?.told.add(piece);
        return;
      case "sendLost":
        for (const piece of effect.pieces) this.#joined.get(`${effect.linkId} ${effect.taskId}`)?.told.delete(piece);
        return;
      case "cancelReceive":
        this.#receives = this.#receives.filter((transfer) => !same(transfer, effect));
        return;
      case "cancelSend":
        this.#sends = this.#sends.filter((transfer) => !same(transfer, effect));
        return;
      default:
    }
  }

  #forget(gone: (transfer: Transfer) => boolean): void {
    const keep = (transfer: Transfer): boolean => !gone(transfer);
    this.#offers = this.#offers.filter(keep);
    this.#agreed = this.#agreed.filter(keep);
    this.#sends = this.#sends.filter(keep);
    this.#receives = this.#receives.filter(keep);
  }
}

function take(transfers: Transfer[], pick: number): Transfer | undefined {
  return transfers.length === 0 ? undefined : transfers.splice(pick % transfers.length, 1)[0];
}

function same(one: Transfer, other: Transfer): boolean {
  return one.linkId === other.linkId && one.taskId === other.taskId && one.piece === other.piece;
}

function plain({ linkId, taskId, piece }: Transfer): Transfer {
  return { linkId, taskId, piece };
}

test("in any life the invariants hold, and its log replayed gives the same effects, byte for byte", () => {
  fc.assert(
    fc.property(commands, fc.integer(), (life, seed) => {
      const world = new World(seed);
      for (const linkId of [1, 2, 3]) {
        world.run({ verb: "link", linkId, taskId: TASK, piece: 0, pick: 0, afterMs: 0 });
        world.run({ verb: "open", linkId, taskId: TASK, piece: 0, pick: 2, afterMs: 0 });
        world.run({ verb: "join", linkId, taskId: TASK, piece: 0, pick: linkId, afterMs: 0 });
      }
      for (const command of life) world.run(command);
      const again = new Swarm(CONFIG, seed);
      const saidAgain = world.log.map(({ input, nowMs }) => JSON.stringify(again.step(input(), nowMs)));
      assert.deepEqual(saidAgain, world.said);
    }),
    { numRuns: 300 },
  );
});

test("after any life, once the world is kind again, a peer beside a full neighbour gets all it needs", () => {
  fc.assert(
    fc.property(commands, fc.integer(), (life, seed) => {
      const world = new World(seed);
      for (const command of life) world.run(command);
      const { swarm } = world;
      // All links but one go; what is being verified gets its outcome; then a neighbour that holds everything offers.
      let nowMs = world.nowMs;
      const step = (input: SwarmInput): readonly SwarmEffect[] => swarm.step(input, nowMs);
      step({ type: "taskClosed", taskId: OTHER_TASK });
      for (let linkId = 1; linkId <= LINKS; linkId++) step({ type: "linkClosed", linkId });
      const state = swarm.snapshot().tasks.find(({ taskId }) => taskId === TASK);
      if (state === undefined) return;
      for (const { piece } of state.incoming) step({ type: "pieceLost", taskId: TASK, piece });
      // After a piece was lost to our own disk, nothing is taken for a second.
      nowMs += 1_000;
      step({ type: "lengthKnown", taskId: TASK, pieceCount: PIECES });
      step({ type: "linkOpened", linkId: 99, peerId: "peer-99" as PeerId });
      const all = setOf(Array.from({ length: PIECES }, (_, i) => i));
      step({ type: "remoteJoined", linkId: 99, taskId: TASK, have: all, seed: true, receives: false, wants: [] });
      for (let piece = 0; piece < PIECES; piece++) {
        nowMs += 10;
        const [answer] = step({ type: "offered", linkId: 99, taskId: TASK, pieces: [piece] });
        if (answer?.type === "sendDecline") {
          assert.equal(answer.reason, "have", `piece ${piece}`);
          continue;
        }
        step({ type: "receiveFinished", linkId: 99, taskId: TASK, piece });
        step({ type: "pieceStored", taskId: TASK, piece });
      }
      assert.equal(swarm.snapshot().tasks.find(({ taskId }) => taskId === TASK)?.haveCount, PIECES);
    }),
    { numRuns: 150 },
  );
});
