/** What peers bring: signed when it was lent to them, never twice with other bytes, the last piece when all is right. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
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
async function lab({ digest, held = [1], windowed = false }: { digest?: string; held?: readonly number[]; windowed?: boolean } = {}) {
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
    received: () => Promise.resolve(),
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
