/** A supernode that cannot store: a few peers read the origin for all. Real parts, one process. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { AppError } from "../../src/base/errors.ts";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import type { Origin } from "../../src/origin/origin.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import type { SupernodeConfig } from "../../src/supernode/config.ts";
import { startSupernode, type Supernode } from "../../src/supernode/supernode.ts";
import { readWhole } from "../lib/read-whole.ts";
import { NO_LIMITS, cacheIn, supernodeConfig } from "./lib/supernode-config.ts";

const MIB = 1 << 20;
const CHUNK_BYTES = 256 * 1024;
/** The supernode's: while it is stopped nobody else is given its port here. */
const SEED_HOST = "127.0.0.3";
const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });

/** Whatever a peer's own origin does instead of reading well. */
type Spoil = (origin: Origin) => Origin;

class Site {
  readonly content: Buffer = randomBytes(24 * MIB + 777);
  readonly digest: string = `sha256:${createHash("sha256").update(this.content).digest("hex")}`;
  /** Bytes of bodies that left the web server, by who asked. */
  readonly givenBytes = new Map<string, number>();
  readonly nodes: PeerNode[] = [];
  readonly #t: TestContext;
  url = "";
  /** Between two chunks that the supernode gets. */
  seedPauseMs = 5;
  peerPauseMs = 5;
  #supernode: Supernode | undefined;
  #config: SupernodeConfig | undefined;
  #seedDirectory = "";

  constructor(t: TestContext) {
    this.#t = t;
  }

  /** @param quotaBytes all that the supernode may keep */
  static async start(t: TestContext, quotaBytes: number | undefined, leaseBelowBytesPerSecond?: number): Promise<Site> {
    const leasePeerCountMax = 2;
    const site = new Site(t);
    const web = createServer((request, response) => site.#answer(request, response));
    await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
    t.after(() => {
      web.closeAllConnections();
      web.close();
    });
    site.url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
    site.#seedDirectory = site.#directory();
    site.#config = supernodeConfig(site.#seedDirectory, {
      listen: { host: SEED_HOST, port: 0 },
      cache: { ...cacheIn(site.#seedDirectory), quotaBytes },
      leasePeerCountMax,
      leaseBelowBytesPerSecond,
    });
    await site.startSupernode();
    t.after(() => site.stopSupernode());
    return site;
  }

  /** Again, where it was before. */
  async startSupernode(): Promise<void> {
    const config = this.#config as SupernodeConfig;
    this.#supernode = await startSupernode(config, { log });
    this.#config = { ...config, listen: this.#supernode.address };
  }

  async stopSupernode(): Promise<void> {
    const supernode = this.#supernode;
    this.#supernode = undefined;
    await supernode?.close();
  }

  async addPeer(name: string, spoil: Spoil = (origin) => origin, uploadBytesPerSecond?: number): Promise<PeerNode> {
    const { port } = (this.#supernode as Supernode).address;
    const http = new HttpOrigin({ userAgent: name });
    const node = await PeerNode.start(
      {
        program: "dfdaemon",
        version: "0",
        supernodes: [{ host: SEED_HOST, port, weight: 1 }],
        joinToken: undefined,
        peerListen: { host: "127.0.0.1", port: 0 },
        advertiseHost: "127.0.0.1",
        cache: cacheIn(this.#directory()),
        limits: { ...NO_LIMITS, uploadBytesPerSecond },
        labels: {},
      },
      { origin: spoil(http), log },
    );
    this.#t.after(async () => {
      await node.close();
      await http.close();
    });
    this.nodes.push(node);
    return node;
  }

  /** Reads all of the file at a peer. */
  fetch(node: PeerNode, { backToSource = true, digest = true } = {}): Promise<Buffer> {
    const source = { url: this.url, headers: {}, ...(digest ? { digest: this.digest } : {}) };
    return readWhole(node, { source, backToSource });
  }

  /** The supernode cannot make a file of a task any more, or can again. */
  breakSeedDisk(isBroken: boolean): void {
    const tasks = join(this.#seedDirectory, "cache/tasks");
    if (isBroken) {
      renameSync(tasks, `${tasks}-away`);
      writeFileSync(tasks, "");
    } else {
      rmSync(tasks);
      renameSync(`${tasks}-away`, tasks);
    }
  }

  async isWholeAtSupernode(): Promise<boolean> {
    const { port } = (this.#supernode as Supernode).address;
    const { tasks } = (await (await fetch(`http://${SEED_HOST}:${port}/v1/tasks`)).json()) as { tasks: { complete: boolean }[] };
    return tasks.length === 1 && tasks[0]?.complete === true;
  }

  /** Bytes that peers have read from the web server. */
  peerBytes(): number {
    return this.readers().reduce((sum, name) => sum + (this.givenBytes.get(name) ?? 0), 0);
  }

  /** Peers that the web server gave anything to. */
  readers(): readonly string[] {
    return [...this.givenBytes.keys()].filter((name) => !name.startsWith("dragonfly")).sort();
  }

  #directory(): string {
    const directory = mkdtempSync(join(tmpdir(), "dragonfly-leases-"));
    this.#t.after(() => rmSync(directory, { recursive: true, force: true }));
    return directory;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const { content } = this;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] ? Number(range[2]) + 1 : content.length;
    const partial = range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${content.length}` };
    response.writeHead(range === null ? 200 : 206, { etag: '"v1"', "accept-ranges": "bytes", "content-length": end - start, ...partial });
    if (request.method === "HEAD") return void response.end();
    const name = request.headers["user-agent"] ?? "";
    const pauseMs = name.startsWith("dragonfly") ? this.seedPauseMs : this.peerPauseMs;
    const gives = (bytes: number): void => void this.givenBytes.set(name, (this.givenBytes.get(name) ?? 0) + bytes);
    Readable.from(chunksOf(content.subarray(start, end), pauseMs, gives), { highWaterMark: 1 }).pipe(response);
  }
}

/** Slowly enough for all to have joined. */
async function* chunksOf(bytes: Buffer, pauseMs: number, gives: (bytes: number) => void): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const chunk = bytes.subarray(at, at + CHUNK_BYTES);
    gives(chunk.length);
    yield chunk;
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

const forbidden: Spoil = (origin) => ({
  stat: (...args) => origin.stat(...args),
  open: () => Promise.reject(new AppError("ORIGIN_FORBIDDEN", "not from here")),
});

test("what the supernode has no room for two peers read for all, once, and none reads it for itself", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  for (const name of ["a", "b", "c", "d", "e"]) await site.addPeer(name);
  const fetched = await Promise.all(site.nodes.map((node) => site.fetch(node)));
  for (const content of fetched) assert.ok(content.equals(site.content));
  assert.ok(site.readers().length <= 2, `${site.readers().join(", ")} read`);
  const peerBytes = site.peerBytes();
  assert.ok(peerBytes <= site.content.length, `${peerBytes} bytes for ${site.content.length}`);
});

test("where the supernode cannot make a file at all two peers read for all, once; as soon as it can again it stores the next", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, undefined);
  for (const name of ["a", "b", "c", "d", "e"]) await site.addPeer(name);
  site.breakSeedDisk(true);
  const fetched = await Promise.all(site.nodes.map((node) => site.fetch(node)));
  for (const content of fetched) assert.ok(content.equals(site.content));
  assert.ok(site.readers().length <= 2, `${site.readers().join(", ")} read`);
  const peerBytes = site.peerBytes();
  assert.equal(peerBytes, site.content.length);
  const one = site.nodes[0] as PeerNode;
  await assert.rejects(site.fetch(one, { digest: false, backToSource: false }), (error: AppError) => error.code === "DISK_FAILED");
  site.breakSeedDisk(false);
  site.givenBytes.clear();
  assert.ok((await site.fetch(await site.addPeer("f"))).equals(site.content));
  assert.deepEqual(site.readers(), [], "it has them from its neighbours");
});

test("a peer that cannot read gives its part to another", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  await site.addPeer("a", forbidden);
  for (const name of ["b", "c"]) await site.addPeer(name);
  await site.addPeer("d", forbidden);
  const fetched = await Promise.all(site.nodes.map((node) => site.fetch(node)));
  for (const content of fetched) assert.ok(content.equals(site.content));
  assert.deepEqual(site.readers(), ["b", "c"]);
});

test("a host that may not read the origin is lent nothing, and when nobody may the reason is told", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  const one = await site.addPeer("a");
  await assert.rejects(site.fetch(one, { backToSource: false }), (error: AppError) => /^(?:CACHE_QUOTA_EXCEEDED|BACK_SOURCE_FORBIDDEN)$/.test(error.code));
  assert.deepEqual(site.readers(), []);
});

test("without a digest nobody's word is taken: each reads for itself", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  for (const name of ["a", "b", "c"]) await site.addPeer(name);
  const fetched = await Promise.all(site.nodes.map((node) => site.fetch(node, { digest: false })));
  for (const content of fetched) assert.ok(content.equals(site.content));
  assert.deepEqual(site.readers(), ["a", "b", "c"]);
});

test("what a lying reader brings is never the file: the download fails, and the next one is right", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  const liar: Spoil = (origin) => ({
    stat: (...args) => origin.stat(...args),
    open: async (...args) => {
      const opened = await origin.open(...args);
      const lies = async function* (): AsyncGenerator<Buffer> {
        for await (const chunk of opened.body as AsyncIterable<Buffer>) yield Buffer.alloc(chunk.length, 7);
      };
      return { ...opened, body: Readable.from(lies()) };
    },
  });
  await site.addPeer("liar", liar);
  await site.addPeer("b");
  const first = await Promise.allSettled(site.nodes.map((node) => site.fetch(node)));
  assert.deepEqual(first.map((outcome) => outcome.status), ["rejected", "rejected"]);
  const honest = site.nodes[1] as PeerNode;
  assert.ok((await site.fetch(honest)).equals(site.content));
});

test("where the origin is slow for the supernode two peers go on with the read, once, and it keeps the file", { timeout: 110_000 }, async (t) => {
  const site = await Site.start(t, undefined, 2 * MIB);
  // 256 KiB a second: the whole file in a minute and a half.
  site.seedPauseMs = 1_000;
  for (const name of ["a", "b", "c", "d"]) await site.addPeer(name);
  const startedMs = performance.now();
  const fetched = await Promise.all(site.nodes.map((node) => site.fetch(node)));
  for (const content of fetched) assert.ok(content.equals(site.content));
  assert.ok(performance.now() - startedMs < 60_000, "as slow as the supernode alone");
  assert.ok(site.readers().length <= 2, `${site.readers().join(", ")} read`);
  const peerBytes = site.peerBytes();
  assert.ok(peerBytes < site.content.length, `${peerBytes} bytes for ${site.content.length}`);
  // What the peers read it keeps as well, some of it after they have it.
  while (!(await site.isWholeAtSupernode())) await new Promise((resolve) => setTimeout(resolve, 20));
});

test("a slow read goes on when nobody else may read", { timeout: 60_000 }, async (t) => {
  const site = await Site.start(t, undefined, 64 * MIB);
  site.seedPauseMs = 150;
  const one = await site.addPeer("a");
  assert.ok((await site.fetch(one, { backToSource: false })).equals(site.content));
  assert.deepEqual(site.readers(), []);
});

test("leases over a restart of the supernode: what peers read before it they do not read again, though not all have it yet", { timeout: 90_000 }, async (t) => {
  const site = await Site.start(t, MIB);
  site.peerPauseMs = 40;
  // What one reads the others get slowly: at the restart most of it is with its reader alone.
  for (const name of ["a", "b", "c", "d"]) await site.addPeer(name, undefined, MIB);
  const fetching = Promise.all(site.nodes.map((node) => site.fetch(node)));
  while (site.peerBytes() < 10 * MIB) await new Promise((resolve) => setTimeout(resolve, 10));
  await site.stopSupernode();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await site.startSupernode();
  for (const content of await fetching) assert.ok(content.equals(site.content));
  // Each holder loses the piece that it was bringing, one begun, and what the web server had sent ahead.
  const lostBytes = 2 * (2 * 256 * 1024 + 3 * CHUNK_BYTES);
  t.diagnostic(`${site.peerBytes() - site.content.length} bytes read again`);
  assert.ok(site.peerBytes() <= site.content.length + lostBytes, `${site.peerBytes()} bytes for ${site.content.length}`);
});
