import assert from "node:assert/strict";
import { mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { systemDisk } from "./disk.ts";
import { Journal, readJournalHead } from "./journal.ts";
import { encodeEntry, PIECE_FRAME_LENGTH_BYTES, type JournalEntry } from "./journal-format.ts";
import { recordOf, taskId, temporaryDirectory } from "./fixture.test.ts";

const record = recordOf("a", undefined);

function journalPath(t: TestContext): string {
  const directory = join(temporaryDirectory(t), record.taskId);
  mkdirSync(directory);
  return join(directory, "journal");
}

function pieceEntry(piece: number, lengthBytes = 65536): JournalEntry {
  return { kind: "piece", piece, lengthBytes, digest: new Uint8Array(32).fill(piece), signature: new Uint8Array(64).fill(piece + 1) };
}

async function write(path: string, entries: readonly JournalEntry[]): Promise<void> {
  const journal = await Journal.create(systemDisk, path, record);
  await Promise.all(entries.map((entry) => journal.append(entry)));
  await journal.close();
}

async function reopen(path: string): Promise<{ state: NonNullable<Awaited<ReturnType<typeof Journal.open>>>["state"]; cutBytes: number }> {
  const opened = await Journal.open(systemDisk, path);
  assert.ok(opened);
  await opened.journal.close();
  return opened;
}

describe("journal", () => {
  test("what was appended is read back", async (t) => {
    const path = journalPath(t);
    const signature = new Uint8Array(64).fill(9);
    await write(path, [pieceEntry(0), pieceEntry(1), pieceEntry(7, 5), { kind: "discard", piece: 1 }, { kind: "length", lengthBytes: 458757, signature }]);
    const { state, cutBytes } = await reopen(path);
    assert.equal(cutBytes, 0);
    assert.deepEqual(state.record, { ...record, lengthBytes: 458757, lengthSignature: signature });
    assert.deepEqual([...state.pieces.keys()], [0, 7]);
    assert.deepEqual(state.pieces.get(7), { lengthBytes: 5, digest: new Uint8Array(32).fill(7), signature: new Uint8Array(64).fill(8) });
  });

  test("a discard of all forgets what came before it only", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(0), { kind: "discard", piece: "all" }, pieceEntry(2)]);
    assert.deepEqual([...(await reopen(path)).state.pieces.keys()], [2]);
  });

  test("a tail torn at any byte is cut, and appending goes on from there", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(0)]);
    const before = readFileSync(path);
    const last: JournalEntry[] = [pieceEntry(1), { kind: "length", lengthBytes: 131072, signature: new Uint8Array(64) }, { kind: "discard", piece: 0 }];
    const ends = last.map((_, at) => before.length + Buffer.concat(last.slice(0, at + 1).map(encodeEntry)).length);
    const whole = Buffer.concat([before, ...last.map(encodeEntry)]);
    for (let end = before.length; end < whole.length; end++) {
      writeFileSync(path, whole.subarray(0, end));
      const opened = await Journal.open(systemDisk, path);
      assert.ok(opened);
      const { state, journal, cutBytes } = opened;
      const kept = ends.findLast((at) => at <= end) ?? before.length;
      assert.equal(cutBytes, end - kept, `torn at ${end}`);
      assert.equal(state.pieces.has(1), end >= (ends[0] as number), `torn at ${end}`);
      assert.equal(state.record.lengthBytes, end >= (ends[1] as number) ? 131072 : undefined);
      await journal.append(pieceEntry(5));
      await journal.close();
      const again = await reopen(path);
      assert.equal(again.cutBytes, 0);
      assert.deepEqual([...again.state.pieces.keys()], [...state.pieces.keys(), 5]);
    }
  });

  test("any byte changed in the last record drops that record, and no piece is ever misread", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(0), pieceEntry(1)]);
    const whole = readFileSync(path);
    for (let at = whole.length - PIECE_FRAME_LENGTH_BYTES; at < whole.length; at++) {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] as number) ^ 0x40;
      writeFileSync(path, changed);
      assert.deepEqual([...(await reopen(path)).state.pieces.keys()], [0], `byte ${at}`);
    }
  });

  test("zeros after the last record, as a power cut leaves them, are cut", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(3)]);
    const { size } = statSync(path);
    writeFileSync(path, Buffer.concat([readFileSync(path), Buffer.alloc(4096)]));
    assert.equal((await reopen(path)).cutBytes, 4096);
    assert.equal(statSync(path).size, size);
  });

  test("an unknown format version is refused by name, the file left alone", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(0)]);
    const bytes = readFileSync(path);
    bytes.writeUInt32LE(7, 4);
    writeFileSync(path, bytes);
    const refusal = { code: "CACHE_CORRUPT", message: /journal format 7, this program reads format 2/ };
    await assert.rejects(Journal.open(systemDisk, path), refusal);
    await assert.rejects(readJournalHead(systemDisk, path), refusal);
    assert.deepEqual(readFileSync(path), bytes);
  });

  test("a damaged header and a journal of another task are refused", async (t) => {
    const path = journalPath(t);
    await write(path, []);
    const bytes = readFileSync(path);
    for (const [damaged, message] of [
      [bytes.subarray(0, bytes.length - 1), /header .* is damaged/],
      [bytes.subarray(0, 8), /header .* is damaged/],
      [bytes.subarray(0, 5), /is not a piece journal/],
      [Buffer.alloc(0), /is not a piece journal/],
    ] as const) {
      writeFileSync(path, damaged);
      await assert.rejects(Journal.open(systemDisk, path), { code: "CACHE_CORRUPT", message });
    }
    const foreign = join(dirname(dirname(path)), taskId("b"));
    mkdirSync(foreign);
    writeFileSync(join(foreign, "journal"), bytes);
    await assert.rejects(Journal.open(systemDisk, join(foreign, "journal")), { code: "CACHE_CORRUPT", message: /belongs to another task/ });
  });

  test("a missing journal is undefined", async (t) => {
    const path = journalPath(t);
    assert.equal(await Journal.open(systemDisk, path), undefined);
    assert.equal(await readJournalHead(systemDisk, path), undefined);
  });

  test("the head alone tells record, held bytes and last change", async (t) => {
    const path = journalPath(t);
    await write(path, [pieceEntry(0), pieceEntry(1)]);
    const head = await readJournalHead(systemDisk, path);
    assert.ok(head);
    assert.deepEqual(head.record, record);
    assert.equal(head.heldBytesEstimate, 131072);
    assert.ok(Math.abs(head.facts.modifiedUnixMs - Date.now()) < 60_000);
  });

  test("the head counts pieces that were signed together, though they take more room", async (t) => {
    const path = journalPath(t);
    const entries = Array.from({ length: 40 }, (_, piece) => ({ ...pieceEntry(piece), signature: new Uint8Array(194).fill(piece) }));
    await write(path, entries);
    assert.equal((await readJournalHead(systemDisk, path))?.heldBytesEstimate, 40 * 65_536);
  });

  test("of a journal too long to be counted the head tells what it holds by its length: never too little", async (t) => {
    const long = recordOf("a", 4000 * 65_536);
    for (const [signatureBytes, atMost] of [[64, 3000], [194, 4000]] as const) {
      const path = journalPath(t);
      const journal = await Journal.create(systemDisk, path, long);
      await Promise.all(Array.from({ length: 3000 }, (_, piece) => journal.append({ ...pieceEntry(piece), signature: new Uint8Array(signatureBytes) } as JournalEntry)));
      await journal.close();
      assert.equal((await readJournalHead(systemDisk, path))?.heldBytesEstimate, atMost * 65_536);
    }
  });

  test("the head tells a length that came late, and a header longer than one read", async (t) => {
    const path = journalPath(t);
    const long = { ...record, headers: { link: "x".repeat(10_000) } };
    const journal = await Journal.create(systemDisk, path, long);
    const signature = new Uint8Array(64).fill(5);
    for (let piece = 0; piece < 100; piece++) await journal.append(pieceEntry(piece));
    await journal.append({ kind: "length", lengthBytes: 6_553_600, signature });
    await journal.close();
    const head = await readJournalHead(systemDisk, path);
    assert.deepEqual(head?.record, { ...long, lengthBytes: 6_553_600, lengthSignature: signature });
    assert.equal(head.heldBytesEstimate, 6_553_600);
  });
});
