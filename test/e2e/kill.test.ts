/**
 * A supernode that is killed (SIGKILL) again and again, at moments chosen by chance, under downloads of new and old
 * files and an operator's changes of its cache. After each kill the test reads the journals that are left: what they
 * hold must never be asked of the origin again, nor be lost by a later kill; and every byte delivered must be right.
 *
 *     E2E_KILLS=200 E2E_SEED=7 node_modules/.bin/node --test test/e2e/kill.test.ts
 */
import assert from "node:assert/strict";
import { createHash, randomFillSync } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { toAppError } from "../../src/base/errors.ts";
import { Prng } from "../../src/base/prng.ts";
import type { PeerNode } from "../../src/peer/peer-node.ts";
import { frameLengthAt } from "../../src/peer/store/frame.ts";
import { checkPreamble, decodeFrame, PREAMBLE_LENGTH_BYTES } from "../../src/peer/store/journal-format.ts";
import type { TaskRecord } from "../../src/peer/store/piece-store.ts";
import { Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { startOwnPeer } from "./lib/own-peer.ts";
import { Lab } from "./lib/processes.ts";

const KILLS = Number(process.env["E2E_KILLS"] ?? 40);
const SEED = Number(process.env["E2E_SEED"] ?? 1);
const MIB = 1 << 20;
const LIFE_MS_MAX = 3_000;
/** Most of what kills should hit is a read of the origin: slow enough that one is always under way. */
const ORIGIN_BYTES_PER_SECOND = 24 * MIB;
const NEW_FILES_PER_LIFE = 2;
const DOWNLOADS_PER_PEER = 3;
/** What a download may end with while its supernode dies; anything else is a finding. */
const EXPECTED_FAILURES: ReadonlySet<string> = new Set(["ABORTED", "SUPERNODE_UNREACHABLE", "BACK_SOURCE_FORBIDDEN", "SHUTTING_DOWN", "TIMEOUT"]);

interface TestFile {
  readonly path: string;
  readonly url: string;
  readonly content: Buffer;
  readonly digest: string | undefined;
  /** The origin knows Range; otherwise a read that was cut begins at the start again, as it must. */
  readonly ranges: boolean;
  /** The operator has removed it at least once: what was on disk before is gone by right. */
  removals: number;
}

/** What a journal says. */
interface OnDisk {
  readonly taskId: string;
  readonly pieceLengthBytes: number;
  readonly pieces: ReadonlySet<number>;
  /** Of the file, when it was read. */
  readonly removals: number;
}

class KillLab {
  readonly lab: Lab;
  readonly origin: Origin;
  readonly supernode: Supernode;
  readonly files: TestFile[] = [];
  readonly failures: string[] = [];
  downloads = 0;
  /** Acknowledged pins by task id; undefined: asked for, but the answer never came. */
  readonly pins = new Map<string, boolean | undefined>();
  readonly #prng: Prng;
  readonly #random = randomFillSync(Buffer.allocUnsafe(48 * MIB));

  constructor(lab: Lab, origin: Origin, supernode: Supernode) {
    this.lab = lab;
    this.origin = origin;
    this.supernode = supernode;
    this.#prng = new Prng(SEED);
  }

  below(limit: number): number {
    return this.#prng.below(limit);
  }

  addFile(): void {
    const kind = this.below(20);
    const lengthBytes = kind === 0 ? 1 + this.below(64 * 1024) : kind < 9 ? 100_000 + this.below(MIB) : 2 * MIB + this.below(10 * MIB);
    const startByte = this.below(this.#random.length - lengthBytes);
    const content = this.#random.subarray(startByte, startByte + lengthBytes);
    const ranges = this.below(7) > 0;
    const path = `/file-${this.files.length}`;
    const digest = this.below(4) === 0 ? `sha256:${createHash("sha256").update(content).digest("hex")}` : undefined;
    this.files.push({ path, url: this.origin.put(path, content, { ranges }), content, digest, ranges, removals: 0 });
  }

  /** New ones are asked for most. */
  pick(): TestFile {
    const newest = Math.min(this.files.length, 3);
    const at = this.below(2) === 0 ? this.files.length - 1 - this.below(newest) : this.below(this.files.length);
    return this.files[at] as TestFile;
  }

  /** Resolves when the origin has given so many bytes from now on, or when it has nothing to give any more. */
  async untilOriginGave(bytes: number): Promise<void> {
    const from = this.origin.log.entries.length;
    for (let waitedMs = 0; waitedMs < LIFE_MS_MAX; waitedMs += 2) {
      if (this.origin.log.entries.slice(from).reduce((sum, entry) => sum + entry.bytes, 0) >= bytes) return;
      await delay(2);
    }
  }

  /** One download, every byte compared. @throws AppError; an AssertionError for a wrong byte */
  async download(node: PeerNode, file: TestFile, signal: AbortSignal): Promise<void> {
    const source = { url: file.url, headers: {}, ...(file.digest === undefined ? {} : { digest: file.digest }) };
    const content = await node.open({ source, backToSource: false }, signal);
    try {
      let at = 0;
      for await (const chunk of content.read({ startByte: 0, endByte: undefined }, signal)) {
        assert.ok(file.content.subarray(at, at + chunk.length).equals(chunk), `wrong bytes of ${file.path} at ${at}`);
        at += chunk.length;
      }
      assert.equal(at, file.content.length, `${file.path} ended early`);
      this.downloads++;
    } finally {
      content.close();
    }
  }

  /** Downloads until the signal. What goes wrong before the kill is a finding, unless the file was being removed. */
  async load(node: PeerNode, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const file = this.pick();
      const { removals } = file;
      await this.download(node, file, signal).catch((thrown: unknown) => {
        if (thrown instanceof assert.AssertionError) return void this.failures.push(thrown.message);
        const error = toAppError(thrown);
        if (!signal.aborted && !EXPECTED_FAILURES.has(error.code) && file.removals === removals) this.failures.push(`${file.path}: ${error.code} ${error.message}`);
      });
      await delay(5);
    }
  }

  /** An operator at the REST API. */
  async operate(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await delay(30 + this.below(150));
      await this.#operateOnce(signal).catch(() => undefined);
    }
  }

  async #operateOnce(signal: AbortSignal): Promise<void> {
    const base = `http://${this.supernode.listen}/v1/cache`;
    const { tasks } = (await (await fetch(base, { signal })).json()) as { tasks: { taskId: string; url: string }[] };
    const task = tasks[this.below(tasks.length)];
    if (task === undefined) return;
    const { taskId } = task;
    const file = this.files.find(({ path }) => path === new URL(task.url).pathname);
    const verb = this.below(8);
    if (verb < 2) {
      const before = this.pins.get(taskId);
      this.pins.set(taskId, undefined);
      const answer = await fetch(`${base}/${taskId}/pin`, { method: verb === 0 ? "PUT" : "DELETE", signal });
      this.pins.set(taskId, answer.status === 204 ? verb === 0 : before);
    } else if (verb === 2 && this.pins.get(taskId) !== true && file !== undefined) {
      // Whether the answer comes or not.
      file.removals++;
      await fetch(`${base}/${taskId}`, { method: "DELETE", signal });
      file.removals++;
    } else if (verb === 3) {
      const answer = await fetch(`${base}/${taskId}/verify`, { method: "POST", signal });
      const { damagedPieces } = (await answer.json()) as { damagedPieces?: number };
      if ((damagedPieces ?? 0) > 0) this.failures.push(`${task.url}: ${damagedPieces} damaged pieces`);
    }
  }

  /** By the path of the file. */
  onDisk(): Map<string, OnDisk> {
    const found = new Map<string, OnDisk>();
    const root = join(this.supernode.dataDir, "cache", "tasks");
    for (const prefix of readdirSync(root)) {
      for (const taskId of readdirSync(join(root, prefix))) {
        const journal = readJournal(join(root, prefix, taskId, "journal"));
        if (journal === undefined) continue;
        const { pathname } = new URL(journal.record.displayUrl);
        const removals = this.files.find(({ path }) => path === pathname)?.removals ?? 0;
        found.set(pathname, { taskId, pieceLengthBytes: journal.record.pieceLengthBytes, pieces: journal.pieces, removals });
      }
    }
    return found;
  }

  /** Bytes of pieces in `held` that the origin sent again in requests from the `from`-th on. */
  readAgain(held: ReadonlyMap<string, OnDisk>, from: number): readonly string[] {
    const again: string[] = [];
    for (const entry of this.origin.log.entries.slice(from)) {
      const file = this.files.find(({ path }) => path === entry.path);
      const disk = held.get(entry.path);
      if (file === undefined || disk === undefined || !file.ranges || file.removals !== disk.removals || entry.bytes === 0) continue;
      if (entry.method !== "GET" || (entry.status !== 200 && entry.status !== 206)) continue;
      const { pieceLengthBytes, pieces } = disk;
      for (let piece = Math.floor(entry.start / pieceLengthBytes); piece * pieceLengthBytes < entry.start + entry.bytes; piece++) {
        if (pieces.has(piece)) again.push(`piece ${piece} of ${entry.path} (${entry.rangeHeader ?? "all"})`);
      }
    }
    return again;
  }

  /** Pieces that were on disk after an earlier kill and are not after this one. */
  lost(before: ReadonlyMap<string, OnDisk>, after: ReadonlyMap<string, OnDisk>): readonly string[] {
    const lost: string[] = [];
    for (const [path, disk] of before) {
      if (this.files.find((file) => file.path === path)?.removals !== disk.removals) continue;
      for (const piece of disk.pieces) if (after.get(path)?.pieces.has(piece) !== true) lost.push(`piece ${piece} of ${path}`);
    }
    return lost;
  }

  async checkPins(): Promise<void> {
    const { tasks } = (await (await fetch(`http://${this.supernode.listen}/v1/cache?limit=10000`)).json()) as { tasks: { taskId: string; pinned: boolean }[] };
    for (const { taskId, pinned } of tasks) {
      const wanted = this.pins.get(taskId);
      if (wanted !== undefined && wanted !== pinned) this.failures.push(`the pin of ${taskId} was ${wanted}, and is ${pinned}`);
      this.pins.set(taskId, pinned);
    }
  }
}

/** As the store reads it: up to the first frame that is not whole. Undefined when its header is not. */
function readJournal(path: string): { readonly record: TaskRecord; readonly pieces: ReadonlySet<number> } | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
    checkPreamble(bytes, path);
  } catch {
    return undefined;
  }
  const pieces = new Set<number>();
  let record: TaskRecord | undefined;
  for (let at = PREAMBLE_LENGTH_BYTES; ; ) {
    const frame = decodeFrame(bytes, at);
    if (frame === undefined) break;
    at += frameLengthAt(bytes, at) as number;
    if (frame.kind === "header") ({ record } = frame);
    else if (frame.kind === "piece") pieces.add(frame.piece);
    else if (frame.kind === "discard" && frame.piece === "all") pieces.clear();
    else if (frame.kind === "discard") pieces.delete(frame.piece as number);
  }
  return record === undefined ? undefined : { record, pieces };
}

/** One life of the supernode: from its start to a kill at a random moment. @returns whether it got to be ready */
async function live(site: KillLab, steady: PeerNode): Promise<boolean> {
  const { supernode } = site;
  for (let made = 0; made < NEW_FILES_PER_LIFE; made++) site.addFile();
  if (site.below(8) === 0) {
    // Killed while it starts.
    const starting = supernode.restart().catch(() => undefined);
    await delay(site.below(1_000));
    await supernode.service.kill();
    await starting;
    return false;
  }
  await supernode.restart();
  await site.checkPins();
  const ending = new AbortController();
  const fresh = await startOwnPeer(site.lab, supernode);
  const work = [site.operate(ending.signal)];
  for (const node of [steady, fresh.node]) for (let lane = 0; lane < DOWNLOADS_PER_PEER; lane++) work.push(site.load(node, ending.signal));
  // Not after a time, but after so many bytes of the origin: on a busy machine, too, that is amid the work.
  await site.untilOriginGave(site.below(16 * MIB));
  const killed = supernode.service.kill();
  ending.abort();
  await killed;
  await Promise.all(work);
  await fresh.close();
  return true;
}

void test(`a supernode killed ${KILLS} times: no wrong byte, nothing that was on disk read again or lost, still of use`, async (t: TestContext) => {
  const lab = new Lab("kill");
  // Node keeps what it made of the sources: a start costs half.
  process.env["NODE_COMPILE_CACHE"] ??= lab.path("compile-cache");
  await lab.use(async () => {
    const origin = await Origin.start(lab);
    origin.bytesPerSecond = ORIGIN_BYTES_PER_SECOND;
    const supernode = await Supernode.start(lab, "127.0.0.1", ["--scrub-rate", "0"]);
    const site = new KillLab(lab, origin, supernode);
    const steady = await startOwnPeer(site.lab, supernode);
    await supernode.service.kill();
    let held: ReadonlyMap<string, OnDisk> = new Map();
    let seen = 0;
    let readyLives = 0;
    let midRead = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      if (await live(site, steady.node)) readyLives++;
      const now = site.onDisk();
      const where = `kill ${kill + 1} of ${KILLS}, seed ${SEED}`;
      assert.deepEqual(site.readAgain(held, seen), [], `${where}: read again though it was on disk`);
      assert.deepEqual(site.lost(held, now), [], `${where}: was on disk, and is not`);
      assert.deepEqual(site.failures, [], where);
      for (const [path, { pieces, pieceLengthBytes }] of now) {
        const file = site.files.find((each) => each.path === path);
        if (file !== undefined && pieces.size < Math.ceil(file.content.length / pieceLengthBytes)) midRead++;
      }
      held = now;
      seen = origin.log.entries.length;
    }
    t.diagnostic(`seed ${SEED}: ${KILLS} kills, ${KILLS - readyLives} of them in the start; ${site.downloads} downloads, ${site.files.length} files, ${midRead} times a file was on disk in part`);
    // Lives end after so many bytes of the origin, however slow the machine: on a busy one few of their downloads are whole.
    assert.ok(site.downloads > KILLS / 4, "there was load");
    assert.ok(midRead > KILLS / 4, "kills hit reads of the origin");

    origin.bytesPerSecond = Number.POSITIVE_INFINITY;
    await supernode.restart();
    await steady.close();
    const everything = AbortSignal.timeout(600_000);
    const downloadAll = async (): Promise<number> => {
      const before = origin.log.entries.length;
      const fresh = await startOwnPeer(site.lab, supernode);
      for (const file of site.files) await site.download(fresh.node, file, everything);
      await fresh.close();
      return before;
    };
    assert.deepEqual(site.readAgain(held, await downloadAll()), [], "all files, once more: what was on disk was read again");
    const afterAll = await downloadAll();
    // An origin that does not know ranges answers the question for the first byte, which is how its length is asked, with all.
    const reads = origin.log.entries.slice(afterAll).filter(({ method, bytes, rangeHeader }) => method === "GET" && bytes > 0 && rangeHeader !== "bytes=0-0");
    assert.deepEqual(reads, [], "all files are in the cache now, and the origin is read nevertheless");
    assert.ok((await supernode.service.stop()).code === 0, "and it ends in good order");
  });
});
