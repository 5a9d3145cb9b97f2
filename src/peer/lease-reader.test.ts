/** Reading a span for all: from the disk, from neighbours, and only the rest from the origin. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { test, type TestContext } from "node:test";
import { AppError } from "../base/errors.ts";
import type { OriginBody } from "../origin/origin.ts";
import type { TaskId } from "../protocol/ids.ts";
import { PieceSet } from "../protocol/piece-set.ts";
import { type Lease, LeaseReader } from "./lease-reader.ts";
import type { PeerTask } from "./peer.ts";
import { RateGate } from "./rate-gate.ts";

const PIECE_BYTES = 1000;
const CONTENT = randomBytes(9 * PIECE_BYTES + 10);
const LEASE: Lease = { taskId: "a".repeat(64) as TaskId, leaseId: 5, firstPiece: 2, endPiece: 6 };
const SOURCE = { url: "http://origin/f", headers: { authorization: "Bearer x" } };
const pieceOf = (piece: number): Buffer => CONTENT.subarray(piece * PIECE_BYTES, (piece + 1) * PIECE_BYTES);

/** Resolves after all that is ready to run. */
const settled = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
};

interface Options {
  readonly held?: readonly number[];
  readonly nearby?: readonly number[];
  /** Instead of a good answer, for the n-th request from 1. */
  readonly answer?: (n: number, bytes: Buffer) => Readable | AppError | undefined;
  readonly bring?: (piece: number) => Promise<void>;
  /** What happens while a neighbour's piece is waited for. */
  readonly onWait?: (arrive: (piece: number) => void) => void;
  /** Of this host's limit, bytes per second. */
  readonly limit?: number;
}

function rig({ held = [], nearby = [], answer = () => undefined, bring = () => Promise.resolve(), onWait = () => undefined, limit: bytesPerSecond }: Options) {
  const have = new PieceSet();
  for (const piece of held) have.add(piece);
  const ranges: string[] = [];
  const bodies: Readable[] = [];
  const said: string[] = [];
  const limit = new RateGate(bytesPerSecond);
  /** How often it was said to begin and not to end, and how often it was said at all. */
  const books = { origin: 0, held: 0, count: 0 };
  const book = (entry: "origin" | "held") => (delta: 1 | -1): void => {
    books[entry] += delta;
    books.count++;
  };
  const reader = new LeaseReader({
    origin: {
      open: ({ url, headers }, { startByte, endByte }): Promise<OriginBody> => {
        assert.deepEqual({ url, headers }, SOURCE);
        ranges.push(`${startByte}-${endByte}`);
        const bytes = CONTENT.subarray(startByte, endByte);
        const answered = answer(ranges.length, bytes);
        if (answered instanceof AppError) return Promise.reject(answered);
        // In parts that end in mid-piece.
        const body = answered ?? Readable.from([bytes.subarray(0, 700), bytes.subarray(700, 2_300), bytes.subarray(2_300)].filter(({ length }) => length > 0));
        bodies.push(body);
        return Promise.resolve({ info: { lengthBytes: CONTENT.length, ranges: true, etag: undefined, lastModified: undefined, contentType: undefined, headers: {} }, startByte, body });
      },
    },
    limit,
    bring: async ({ leaseId }, piece, bytes, ticket) => {
      assert.deepEqual([leaseId, ticket], [LEASE.leaseId, "ticket"]);
      assert.ok(Buffer.from(bytes).equals(pieceOf(piece)), `other bytes in piece ${piece}`);
      await bring(piece);
      said.push(`bring ${piece}`);
      return { digest: Buffer.from(String(piece)), signature: new Uint8Array() };
    },
    failed: ({ leaseId }) => void said.push(`failed ${leaseId}`),
    log: { info: () => undefined, warn: () => undefined },
    random: () => 0,
    sleep: () => Promise.resolve(),
  });
  // As much of a task as the reader looks at.
  const task = {
    stored: {
      have,
      read: (offset: number, into: Uint8Array): Promise<void> => {
        said.push(`disk ${offset / PIECE_BYTES}`);
        into.set(CONTENT.subarray(offset, offset + into.length));
        return Promise.resolve();
      },
    },
    session: {
      ticket: "ticket", pieceLengthBytes: PIECE_BYTES, lengthBytes: CONTENT.length,
      account: { readingOrigin: book("origin"), held: book("held") },
      newReaderId: () => 1,
      changed: async (): Promise<void> => {
        onWait((piece) => have.add(piece));
        await new Promise((resolve) => setImmediate(resolve));
      },
    },
    isHeldNearby: (piece: number) => nearby.includes(piece),
    readerAt: (_id: number, piece: number | undefined) => void said.push(`at ${piece}`),
    addProven: (piece: number, _bytes: Uint8Array, { digest }: { readonly digest: Uint8Array }): Promise<void> => {
      assert.equal(Buffer.from(digest).toString(), String(piece));
      said.push(`store ${piece}`);
      return Promise.resolve();
    },
  } as unknown as PeerTask;
  const read = async (lease: Lease = LEASE): Promise<void> => {
    reader.read(lease, task, SOURCE);
    await settled();
  };
  return { reader, read, ranges, bodies, said, limit, books };
}

/** A neighbour's piece that does not come: the wait is over soon. */
function impatient(t: TestContext): void {
  t.mock.method(AbortSignal, "timeout", (delayMs: number) => {
    assert.ok(delayMs <= 5_000, "the scheduler waits 20 s for a sign of life");
    const giving = new AbortController();
    setImmediate(() => giving.abort());
    return giving.signal;
  });
}

test("a span is one read of the origin, each piece brought and then stored, in order, within the host's limit", async () => {
  const { read, ranges, said, limit, bodies } = rig({});
  await read();
  assert.deepEqual(ranges, ["2000-6000"]);
  assert.deepEqual(said, [2, 3, 4, 5].flatMap((piece) => [`bring ${piece}`, `store ${piece}`]));
  assert.equal(limit.passedBytes, 4_000);
  assert.ok(bodies[0]?.destroyed);
});

test("the last piece is as long as the file has it", async () => {
  const { read, ranges, said } = rig({});
  await read({ ...LEASE, firstPiece: 8, endPiece: 10 });
  assert.deepEqual(ranges, [`8000-${CONTENT.length}`]);
  assert.equal(said.at(-1), "store 9");
});

test("what is on the disk is brought from there, and only the rest is read", async () => {
  const { read, ranges, said } = rig({ held: [3] });
  await read();
  assert.deepEqual(ranges, ["2000-3000", "4000-6000"]);
  assert.deepEqual(said.filter((word) => word.startsWith("disk") || word.startsWith("bring")), ["bring 2", "disk 3", "bring 3", "bring 4", "bring 5"]);
});

test("what a neighbour holds is waited for, and asked for", async () => {
  const { read, ranges, said } = rig({ nearby: [2, 3, 4, 5], onWait: (arrive) => [2, 3, 4, 5].forEach(arrive) });
  await read();
  assert.deepEqual(ranges, []);
  assert.deepEqual(said.slice(0, 3), ["at 2", "at undefined", "disk 2"]);
  assert.equal(said.filter((word) => word.startsWith("bring")).length, 4);
});

test("a neighbour's piece that does not come is read from the origin, and so are the others then", async (t) => {
  impatient(t);
  const { read, ranges, said } = rig({ nearby: [2, 3, 4, 5] });
  await read();
  assert.deepEqual(ranges, ["2000-6000"]);
  assert.equal(said.filter((word) => word.startsWith("at ")).length, 2, "one wait, not one for each");
});

test("a cut is gone on from where it was, three attempts in all; then the supernode is told", async () => {
  const cut = (n: number, bytes: Buffer): Readable | undefined => (n === 1 ? Readable.from([bytes.subarray(0, 2_500)]) : undefined);
  const once = rig({ answer: cut });
  await once.read();
  assert.deepEqual(once.ranges, ["2000-6000", "4000-6000"]);
  assert.equal(once.said.at(-1), "store 5");
  const always = rig({ answer: () => new AppError("ORIGIN_UNREACHABLE", "down") });
  await always.read();
  assert.deepEqual([always.ranges.length, always.said], [3, ["failed 5"]]);
});

test("what the origin or the supernode refuses is not tried again", async () => {
  const forbidden = rig({ answer: () => new AppError("ORIGIN_FORBIDDEN", "no") });
  await forbidden.read();
  assert.deepEqual([forbidden.ranges.length, forbidden.said], [1, ["failed 5"]]);
  const refused = rig({ bring: () => Promise.reject(new AppError("TICKET_REFUSED", "not lent any more")) });
  await refused.read();
  assert.deepEqual([refused.ranges.length, refused.said], [1, ["failed 5"]]);
});

test("a lease that is taken back ends the read, without a word", async () => {
  const gate = Promise.withResolvers<void>();
  const { reader, read, said, bodies } = rig({ bring: (piece) => (piece === 3 ? gate.promise : Promise.resolve()) });
  await read();
  reader.revoke(LEASE.leaseId);
  gate.reject(new AppError("ABORTED", "the lease is over"));
  await settled();
  assert.deepEqual(said, ["bring 2", "store 2"]);
  assert.ok(bodies[0]?.destroyed);
});

test("one that is taken back while a neighbour's piece is waited for asks the origin for nothing", async () => {
  const waiting = Promise.withResolvers<void>();
  const { reader, read, ranges, said } = rig({ nearby: [2, 3, 4, 5], onWait: () => waiting.resolve() });
  const reading = read();
  await waiting.promise;
  reader.revoke(LEASE.leaseId);
  await reading;
  await settled();
  assert.deepEqual([ranges, said], [[], ["at 2", "at undefined"]]);
});

test("a piece that no neighbour holds any more is read from the origin at once", async () => {
  const nearby = [2, 3];
  const { read, ranges } = rig({ nearby, onWait: () => void nearby.splice(0) });
  await read();
  assert.deepEqual(ranges, ["2000-6000"]);
});

test("with the supernode gone nothing is read any more, and nobody told", async () => {
  const gate = Promise.withResolvers<void>();
  const { reader, read, said, bodies } = rig({ bring: () => gate.promise });
  await read();
  reader.close();
  gate.reject(new AppError("SUPERNODE_UNREACHABLE", "gone"));
  await settled();
  assert.deepEqual(said, []);
  assert.ok(bodies[0]?.destroyed);
});

test("the books are even once a lease is over, however it ended", async () => {
  const gate = Promise.withResolvers<void>();
  const [read, failed, revoked] = [rig({ limit: 1e9 }), rig({ answer: () => new AppError("ORIGIN_FORBIDDEN", "no") }), rig({ bring: () => gate.promise })];
  await Promise.all([read.read(), failed.read(), revoked.read()]);
  revoked.reader.revoke(LEASE.leaseId);
  gate.reject(new AppError("ABORTED", "the lease is over"));
  await settled();
  for (const { books } of [read, failed, revoked]) {
    assert.ok(books.count > 0);
    assert.deepEqual([books.origin, books.held], [0, 0]);
  }
});
