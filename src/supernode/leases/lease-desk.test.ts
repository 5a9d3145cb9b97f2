/** What peers bring: signed when it was lent to them, never twice with other bytes, the last piece when all is right. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import { collectGarbage } from "../../base/garbage-fixture.test.ts";
import { SignatureVerifier, SigningKey } from "../../peer/membership/credentials.ts";
import type { PieceProof, TaskRecord } from "../../peer/store/piece-store.ts";
import type { PeerId, TaskId } from "../../protocol/ids.ts";
import { pieceStatement } from "../../protocol/link-frames.ts";
import type { PieceSpan, SchedulerInput } from "../../scheduler/index.ts";
import { FakeStored, KIB, silentLog } from "../cache/seed-fixture.test.ts";
import { LeaseDesk } from "./lease-desk.ts";

const PIECE_BYTES = 64 * KIB;
const A = "peer-a" as PeerId;
const B = "peer-b" as PeerId;
const key = SigningKey.generate();
const taskId = "d".repeat(64) as TaskId;

/** A file of six pieces, of which the seed holds the second, and a desk for the rest. */
async function lab({ digest, held = [1], windowed = false, received = () => Promise.resolve() }: {
  readonly digest?: string;
  readonly held?: readonly number[];
  readonly windowed?: boolean;
  readonly received?: (taskId: TaskId, count: number, signal: AbortSignal) => Promise<void>;
} = {}) {
  const pieceBytes = windowed ? 8192 * KIB : PIECE_BYTES;
  const content = randomBytes(windowed ? 12 * pieceBytes : 5 * pieceBytes + 100);
  const record: TaskRecord = {
    taskId, displayUrl: "", lengthBytes: content.length, lengthSignature: undefined, pieceLengthBytes: pieceBytes, contentType: undefined,
    digest: digest ?? `sha256:${createHash("sha256").update(content).digest("hex")}`, headers: {}, publicKey: key.publicKey,
  };
  const stored = new FakeStored(record);
  const pieceOf = (piece: number): Uint8Array => new Uint8Array(content.subarray(piece * pieceBytes, (piece + 1) * pieceBytes));
  for (const piece of held) {
    const bytes = new Uint8Array(new SharedArrayBuffer(pieceBytes));
    bytes.set(pieceOf(piece));
    // oxlint-disable-next-line no-await-in-loop -- setting up
    await stored.storeOwn(piece, bytes, () => new Uint8Array());
  }
  const pushed: SchedulerInput[] = [];
  const failures: { code: string; discard: boolean }[] = [];
  const desk = new LeaseDesk({
    key,
    push: (input) => void pushed.push(input),
    received,
    onFailed: (_taskId, { code }, discard) => void failures.push({ code, discard }),
    log: silentLog,
  });
  const cause = new AppError("DISK_FULL", "full");
  const bring = (leaseId: number, peerId: PeerId, piece: number, bytes = pieceOf(piece)): Promise<PieceProof> => desk.take(taskId, leaseId, peerId, piece, bytes);
  const wanted = (): readonly PieceSpan[] => {
    const input = pushed.findLast(({ type }) => type === "readersWanted");
    return input?.type === "readersWanted" ? input.spans : [];
  };
  return { desk, stored, cause, pieceOf, bring, pushed, wanted, failures };
}

test("pieces are signed as they come, whoever brings them; the last one when the whole file is right", async () => {
  const { desk, stored, cause, pieceOf, bring, wanted, failures, pushed } = await lab();
  assert.ok(desk.begin(stored, cause));
  assert.deepEqual(wanted(), [{ firstPiece: 0, endPiece: 1 }, { firstPiece: 2, endPiece: 6 }]);
  desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 1 });
  desk.granted(taskId, 2, B, { firstPiece: 2, endPiece: 6 });
  const verifier = new SignatureVerifier(key.publicKey);
  for (const piece of [2, 3, 4]) {
    // oxlint-disable-next-line no-await-in-loop -- in order
    const { digest, signature } = await bring(2, B, piece);
    assert.ok(verifier.verify(pieceStatement(taskId, piece, pieceOf(piece).length, digest), signature));
  }
  let isSigned = false;
  const last = bring(2, B, 5).then((proof) => ((isSigned = true), proof));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isSigned, false, "the first piece is missing");
  await bring(1, A, 0);
  const { digest, signature } = await last;
  assert.ok(verifier.verify(pieceStatement(taskId, 5, 100, digest), signature));
  assert.equal(desk.isActive(taskId), false);
  assert.deepEqual(failures, []);
  assert.deepEqual(wanted(), [], "nobody is wanted any more");
  assert.deepEqual(pushed.filter(({ type }) => type === "spanProgressed").length, 5);
});

test("a piece that vanishes from the seed's disk before it is hashed is asked of peers, too", async () => {
  const { desk, stored, cause, bring, wanted, failures } = await lab({ held: [1, 3] });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 1 });
  await bring(1, A, 0);
  desk.granted(taskId, 2, B, { firstPiece: 4, endPiece: 6 });
  await bring(2, B, 4);
  const last = bring(2, B, 5);
  await new Promise((resolve) => setImmediate(resolve));
  stored.have.delete(1);
  desk.lost(taskId);
  assert.deepEqual(wanted(), [{ firstPiece: 0, endPiece: 1 }, { firstPiece: 2, endPiece: 3 }, { firstPiece: 4, endPiece: 6 }], "that one is in the hash");
  stored.have.delete(3);
  desk.lost(taskId);
  await assert.rejects(last, { code: "SHUTTING_DOWN" });
  assert.deepEqual(wanted(), [{ firstPiece: 0, endPiece: 6 }]);
  desk.granted(taskId, 3, A, { firstPiece: 0, endPiece: 6 });
  // oxlint-disable-next-line no-await-in-loop -- in order
  for (let piece = 0; piece < 6; piece++) await bring(3, A, piece);
  assert.equal(desk.isActive(taskId), false);
  assert.deepEqual(failures, []);
});

test("a piece that vanishes while it is read for the hash is asked of peers, and the former hash ends nothing", async () => {
  const { desk, stored, cause, bring, wanted } = await lab({ held: [5] });
  const read = stored.read.bind(stored);
  Object.assign(stored, {
    read: async (at: number, into: Uint8Array) => {
      await read(at, into);
      stored.have.delete(5);
      desk.lost(taskId);
    },
  });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 5 });
  // oxlint-disable-next-line no-await-in-loop -- in order
  for (let piece = 0; piece < 4; piece++) await bring(1, A, piece);
  await assert.rejects(bring(1, A, 4), { code: "SHUTTING_DOWN" });
  assert.deepEqual(wanted(), [{ firstPiece: 0, endPiece: 6 }]);
  assert.equal(desk.isActive(taskId), true);
});

test("of a piece that comes again other bytes are never signed", async () => {
  const { desk, stored, cause, bring, pushed } = await lab();
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 2, endPiece: 6 });
  const first = await bring(1, A, 2);
  desk.revoked(taskId, 1);
  desk.granted(taskId, 2, B, { firstPiece: 2, endPiece: 6 });
  await assert.rejects(bring(2, B, 2, randomBytes(PIECE_BYTES)), { code: "DIGEST_MISMATCH" });
  assert.deepEqual(pushed.at(-1), { type: "spanFailed", taskId, leaseId: 2 });
  desk.granted(taskId, 3, A, { firstPiece: 2, endPiece: 6 });
  assert.deepEqual(await bring(3, A, 2), first);
});

test("a file that is not what its digest says is given up, with all that was given out, and not lent again", async () => {
  const { desk, stored, cause, bring, failures } = await lab({ held: [0, 1, 2, 3] });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 4, endPiece: 6 });
  await bring(1, A, 4, randomBytes(PIECE_BYTES));
  await assert.rejects(bring(1, A, 5), { code: "DIGEST_MISMATCH" });
  assert.deepEqual(failures, [{ code: "DIGEST_MISMATCH", discard: true }]);
  assert.equal(desk.begin(stored, cause), false);
});

test("only who was lent a piece brings it, in order", async () => {
  const { desk, stored, cause, bring } = await lab();
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 2, endPiece: 4 });
  const refused = { code: "TICKET_REFUSED" };
  await assert.rejects(bring(1, B, 2), refused);
  await assert.rejects(bring(2, A, 2), refused);
  await assert.rejects(bring(1, A, 3), refused);
  await bring(1, A, 2);
  await assert.rejects(bring(1, A, 2), refused);
  await bring(1, A, 3);
  await assert.rejects(bring(1, A, 4), refused);
  desk.end(taskId);
  await assert.rejects(bring(1, A, 4), refused);
});

test("content without a strong digest is not lent", async () => {
  for (const digest of [`md5:${"a".repeat(32)}`, `sha1:${"a".repeat(40)}`]) {
    // oxlint-disable-next-line no-await-in-loop -- cases
    const { desk, stored, cause } = await lab({ digest });
    assert.equal(desk.begin(stored, cause), false);
  }
});

test("what is far ahead waits for what is behind, so that memory is bounded", async () => {
  const { desk, stored, cause, bring } = await lab({ held: [], windowed: true });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 2 });
  desk.granted(taskId, 2, B, { firstPiece: 8, endPiece: 10 });
  let isSigned = false;
  const ahead = bring(2, B, 8).then(() => (isSigned = true));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isSigned, false);
  await bring(1, A, 0);
  await ahead;
});

test("when nobody reads, the reason why the seed does not is told", async () => {
  const { desk, stored, cause, failures } = await lab();
  desk.begin(stored, cause);
  desk.nobodyReads(taskId);
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(failures, [{ code: "DISK_FULL", discard: false }]);
  assert.equal(desk.isActive(taskId), false);
});

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("what is whole, has no known length, or is lent already is not lent again", async () => {
  const { desk, stored, cause, pushed } = await lab();
  assert.ok(desk.begin(stored, cause));
  assert.ok(desk.begin(stored, cause));
  assert.equal(pushed.filter(({ type }) => type === "readersWanted").length, 1);
  const whole = await lab({ held: [0, 1, 2, 3, 4], windowed: false });
  whole.stored.have.add(5);
  assert.equal(whole.desk.begin(whole.stored, cause), false);
  const endless = await lab();
  endless.stored.record = { ...endless.stored.record, lengthBytes: undefined };
  assert.equal(endless.desk.begin(endless.stored, cause), false);
  assert.deepEqual([...whole.pushed, ...endless.pushed], []);
});

test("spans are of 16 MiB at most", async () => {
  const large = await lab({ held: [], windowed: true });
  large.desk.begin(large.stored, large.cause);
  assert.deepEqual(large.wanted().map(({ firstPiece, endPiece }) => endPiece - firstPiece), [2, 2, 2, 2, 2, 2]);
});

test("with the end of the file here, the last piece that is missing waits for the whole", async () => {
  const { desk, stored, cause, bring, pieceOf } = await lab({ held: [0, 1, 3] });
  stored.pieces.set(5, Buffer.from(pieceOf(5)));
  stored.have.add(5);
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 2, endPiece: 3 });
  desk.granted(taskId, 2, B, { firstPiece: 4, endPiece: 5 });
  let isSigned = false;
  const last = bring(2, B, 4).then(() => (isSigned = true));
  await turn();
  assert.equal(isSigned, false);
  await bring(1, A, 2);
  await last;
});

test("what is brought counts, and is not signed before the limit lets it", async () => {
  const counted: number[] = [];
  const gate = Promise.withResolvers<void>();
  const { desk, stored, cause, bring } = await lab({ received: (_taskId, count) => (counted.push(count), gate.promise) });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 2, endPiece: 4 });
  let isSigned = false;
  const brought = bring(1, A, 2).then(() => (isSigned = true));
  await turn();
  assert.deepEqual([counted, isSigned], [[PIECE_BYTES], false]);
  gate.resolve();
  await brought;
});

test("the end of a task ends what waits for a limit or for others, at once, and nothing is taken any more", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let signal: AbortSignal | undefined;
  const { desk, stored, cause, bring } = await lab({ held: [], windowed: true, received: (_taskId, _count, given) => ((signal = given), Promise.resolve()) });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 8, endPiece: 10 });
  const ahead = bring(1, A, 8);
  await turn();
  desk.close();
  await assert.rejects(ahead, { code: "SHUTTING_DOWN" });
  assert.equal(signal?.aborted, true);
  assert.equal(desk.granted(taskId, 2, B, { firstPiece: 0, endPiece: 1 }), false);
  assert.throws(() => desk.expectedBytes(taskId, 2, B, 0), { code: "TICKET_REFUSED" });
});

test("who is kept waiting by others shows life all the while", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { desk, stored, cause, bring, pushed } = await lab({ held: [], windowed: true });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 8, endPiece: 10 });
  void bring(1, A, 8).catch(() => undefined);
  const signs = (): number => pushed.filter((input) => input.type === "spanProgressed" && input.nextPiece === 8).length;
  for (const expected of [0, 1, 2]) {
    await turn();
    assert.equal(signs(), expected);
    t.mock.timers.tick(5_000);
  }
  desk.close();
});

test("only its holder gives a lease up, and who lost one brings nothing under it", async () => {
  const { desk, stored, cause, bring, pushed } = await lab();
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 2, endPiece: 4 });
  desk.failed(taskId, 1, B);
  assert.equal(pushed.some(({ type }) => type === "spanFailed"), false);
  desk.failed(taskId, 1, A);
  assert.deepEqual(pushed.at(-1), { type: "spanFailed", taskId, leaseId: 1 });
  desk.revoked(taskId, 1);
  await assert.rejects(bring(1, A, 2), { code: "TICKET_REFUSED" });
});

test("the supernode keeps what is brought before it is signed for, and hears of the end when all answers have gone", async () => {
  const { desk, stored, cause, bring, pushed } = await lab({ held: [0, 1, 2, 3] });
  const said: string[] = [];
  const kept = Promise.withResolvers<void>();
  const outcome = {
    keep: async (piece: number): Promise<void> => {
      said.push(`keep ${piece}`);
      if (piece === 4) await kept.promise;
    },
    onComplete: () => void said.push("complete"),
  };
  desk.begin(stored, cause, outcome);
  desk.granted(taskId, 1, A, { firstPiece: 4, endPiece: 5 });
  desk.granted(taskId, 2, B, { firstPiece: 5, endPiece: 6 });
  const first = bring(1, A, 4).then(() => void said.push("signed 4"));
  await bring(2, B, 5);
  assert.deepEqual(said, ["keep 4", "keep 5"]);
  assert.equal(pushed.filter((input) => input.type === "readersWanted" && input.spans.length === 0).length, 0);
  kept.resolve();
  await first;
  assert.deepEqual(said, ["keep 4", "keep 5", "complete", "signed 4"]);
});

test("whoever wants to know that nobody reads is told that instead of a failure", async () => {
  const { desk, stored, cause, failures } = await lab();
  let isNobody = false;
  desk.begin(stored, cause, { onNobody: () => void (isNobody = true) });
  desk.nobodyReads(taskId);
  await turn();
  assert.deepEqual([isNobody, failures], [true, []]);
});

test("a wrong file ends the reading, and so does a disk that does not give back what it holds", async () => {
  const wrong = await lab({ held: [0, 1, 2, 3, 4] });
  wrong.desk.begin(wrong.stored, wrong.cause);
  wrong.desk.granted(taskId, 1, A, { firstPiece: 5, endPiece: 6 });
  await assert.rejects(wrong.bring(1, A, 5, randomBytes(100)), { code: "DIGEST_MISMATCH" });
  const broken = await lab();
  broken.stored.pieces.delete(1);
  broken.desk.begin(broken.stored, broken.cause);
  broken.desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 1 });
  await broken.bring(1, A, 0);
  for (let i = 0; i < 5; i++) await turn();
  assert.deepEqual(broken.failures, [{ code: "PIECE_UNKNOWN", discard: false }]);
  for (const { pushed, desk } of [wrong, broken]) {
    assert.ok(pushed.some((input) => input.type === "readersWanted" && input.spans.length === 0));
    assert.equal(desk.isActive(taskId), false);
  }
});

test("what is in the digest is not kept", async () => {
  const { desk, stored, cause, pieceOf, bring } = await lab({ held: [] });
  desk.begin(stored, cause);
  desk.granted(taskId, 1, A, { firstPiece: 0, endPiece: 6 });
  const brought: WeakRef<Uint8Array>[] = [];
  const bringOne = async (piece: number): Promise<void> => {
    const bytes = pieceOf(piece);
    brought.push(new WeakRef(bytes));
    await bring(1, A, piece, bytes);
  };
  for (const piece of [0, 1, 2]) await bringOne(piece);
  await turn();
  collectGarbage();
  assert.deepEqual(brought.map((bytes) => bytes.deref() === undefined), [true, true, true]);
});
