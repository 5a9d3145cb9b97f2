/** Who shares what: places that hold the content do, places that only say so do not. */
import assert from "node:assert/strict";
import { createHash, createSecretKey, randomBytes, randomInt } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AppError } from "../../base/errors.ts";
import type { Origin } from "../../origin/origin.ts";
import { SigningKey } from "../../peer/membership/credentials.ts";
import { pieceLengthFor } from "../../protocol/geometry.ts";
import type { TaskId } from "../../protocol/ids.ts";
import { FakeOrigin, FakeStore, KIB, silentLog } from "../cache/seed-fixture.test.ts";
import { ContentPlaces } from "./content-places.ts";
import { PlaceProver } from "./place-proof.ts";
import { identifySource } from "./task-identity.ts";
import { VersionMemory } from "./version-memory.ts";

const key = SigningKey.generate();
const secret = createSecretKey(new Uint8Array(32));
const WEEK_MS = 7 * 24 * 3_600_000;

/** Servers by host, one content, and whoever says that he has it. */
class World {
  readonly content: Buffer;
  readonly digest: string;
  readonly store = new FakeStore();
  readonly active = new Set<TaskId>();
  readonly servers = new Map<string, FakeOrigin>();
  readonly versions: VersionMemory;
  unixMs = 1_000_000;
  draw: (end: number) => number = (end) => randomInt(end);
  places: ContentPlaces;

  constructor(content: Buffer = randomBytes(300 * KIB), versions: VersionMemory = new VersionMemory(":memory:")) {
    this.content = content;
    this.digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    this.versions = versions;
    this.places = this.started(versions);
  }

  started(versions: VersionMemory): ContentPlaces {
    const origin: Pick<Origin, "open"> = {
      open: (request, range, expected, signal) => (this.server(new URL(request.url).hostname) as Origin).open(request, range, expected, signal),
    };
    const prover = new PlaceProver({ origin, onRequest: () => {}, randomInt: (end) => this.draw(end) });
    const isActive = (taskId: TaskId): boolean => this.active.has(taskId);
    return new ContentPlaces({ store: this.store, versions, prover, isActive, unixMs: () => this.unixMs, log: silentLog });
  }

  server(host: string): FakeOrigin {
    const server = this.servers.get(host) ?? new FakeOrigin(this.content);
    this.servers.set(host, server);
    return server;
  }

  ask(host: string, hint?: TaskId, repository = "app"): Promise<TaskId> {
    const source = { url: `http://${host}/v2/${repository}/blobs/${this.digest}`, headers: { authorization: "mine" } };
    const { content } = identifySource(source, secret);
    assert.ok(content !== undefined);
    return this.places.taskFor(content, source, hint);
  }

  /** The place's own task has been read to its end. */
  async delivered(taskId: TaskId): Promise<TaskId> {
    const { content, digest } = this;
    const stored = await this.store.open({
      taskId, digest, displayUrl: "", lengthBytes: content.length, lengthSignature: undefined, pieceLengthBytes: pieceLengthFor(content.length),
      contentType: undefined, headers: {}, publicKey: key.publicKey,
    });
    const { pieceLengthBytes } = stored.record;
    for (let piece = 0; piece * pieceLengthBytes < content.length; piece++) {
      const part = content.subarray(piece * pieceLengthBytes, (piece + 1) * pieceLengthBytes);
      const bytes = new Uint8Array(new SharedArrayBuffer(part.length));
      bytes.set(part);
      // oxlint-disable-next-line no-await-in-loop -- in order
      await stored.storeOwn(piece, bytes, () => new Uint8Array());
    }
    await this.places.delivered(taskId);
    return taskId;
  }

  /** Bytes that were read of a server. */
  readBytes(host: string): number {
    return this.server(host).bytesRead;
  }
}

test("one layer in two registries and two repositories is one task, for 64 KiB from each further place", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  for (const [host, repository] of [["first", "other"], ["second", "app"], ["third", "app"]] as const) {
    const before = world.readBytes(host);
    // oxlint-disable-next-line no-await-in-loop -- cases
    assert.equal(await world.ask(host, undefined, repository), shared);
    assert.equal(world.readBytes(host) - before, 64 * KIB);
    const { requests } = world.server(host);
    assert.ok(requests.every(({ headers }) => headers["authorization"] === "mine"), "asked in the caller's name");
    // oxlint-disable-next-line no-await-in-loop -- cases
    assert.equal(await world.ask(host, undefined, repository), shared, "known by now");
    assert.equal(world.readBytes(host) - before, 64 * KIB);
  }
});

test("a thousand callers of a place are one proof", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const tasks = await Promise.all(Array.from({ length: 1000 }, () => world.ask("second")));
  assert.deepEqual(new Set(tasks), new Set([shared]));
  assert.equal(world.server("second").requests.length, 4);
});

const IMPOSTORS: Readonly<Record<string, (server: FakeOrigin, content: Buffer) => void>> = {
  "has never seen it": (server) => (server.fault = () => ({ error: new AppError("ORIGIN_NOT_FOUND", "no") })),
  "breaks off": (server) => (server.fault = () => ({ cutAfterBytes: 10 })),
  "makes something up": (server, content) => (server.content = randomBytes(content.length)),
  "has another length of it": (server, content) => (server.content = Buffer.concat([content, Buffer.alloc(1)])),
  "has all but a quarter": (server, content) => (server.content = Buffer.concat([content.subarray(0, (content.length * 3) / 4), randomBytes(content.length / 4)])),
  "gives the beginning of what is asked, as if it were all": (server, content) => {
    server.open = (request, { startByte }) => {
      server.requests.push(request);
      return Promise.resolve({ info: server.info, startByte, body: Readable.from([content.subarray(startByte, startByte + 1000)]) });
    };
  },
  "gives no ranges": (server) => (server.ranges = false),
};
for (const [what, spoil] of Object.entries(IMPOSTORS)) {
  test(`a place that ${what} has to deliver the content itself, and shares it from then on`, async () => {
    const world = new World();
    const shared = await world.delivered(await world.ask("first"));
    spoil(world.server("second"), world.content);
    const own = await world.ask("second");
    assert.notEqual(own, shared);
    const requests = world.server("second").requests.length;
    assert.equal(await world.ask("second"), own);
    assert.equal(world.server("second").requests.length, requests, "not tried again at once");
    await world.delivered(own);
    assert.equal(await world.ask("second"), shared);
    // What began there ends there.
    assert.equal(await world.ask("second", own), own);
  });
}

test("who fails four times, by whatever places, makes all further places deliver for an hour", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  for (const host of ["a", "b", "c", "d"]) {
    IMPOSTORS["breaks off"]?.(world.server(host), world.content);
    // oxlint-disable-next-line no-await-in-loop -- cases
    assert.notEqual(await world.ask(host), shared);
  }
  assert.notEqual(await world.ask("honest"), shared);
  assert.equal(world.server("honest").requests.length, 0);
  world.unixMs += 3_600_000;
  assert.equal(await world.ask("honest"), shared);
});

test("of places that are asked at the same time no more see what is asked than may fail", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const hosts = Array.from({ length: 12 }, (_, n) => `impostor-${n}`);
  for (const host of hosts) IMPOSTORS["breaks off"]?.(world.server(host), world.content);
  const tasks = await Promise.all(hosts.map((host) => world.ask(host)));
  assert.ok(!tasks.includes(shared));
  assert.equal(hosts.filter((host) => world.server(host).requests.length > 0).length, 4);
});

test("places that hold the content show it, however many are asked at the same time", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const hosts = Array.from({ length: 12 }, (_, n) => `host-${n}`);
  assert.deepEqual(new Set(await Promise.all(hosts.map((host) => world.ask(host)))), new Set([shared]));
});

test("who waits for others' proofs has a read of his own after five seconds", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const asked = ["a", "b", "c", "d", "e", "f"].map((host) => world.ask(host));
  world.server("a").fault = () => {
    world.unixMs += 5_000;
    return undefined;
  };
  const tasks = await Promise.all(asked);
  assert.deepEqual(new Set(tasks.slice(0, 5)), new Set([shared]), "whose turn has come by then takes it");
  assert.notEqual(tasks[5], shared);
  assert.equal(world.server("f").requests.length, 0);
});

test("what a caller says that he took part in opens nothing but his own place's task", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  IMPOSTORS["has never seen it"]?.(world.server("second"), world.content);
  assert.notEqual(await world.ask("second", shared), shared);
  assert.notEqual(await world.ask("second", "f".repeat(64) as TaskId), "f".repeat(64));
});

test("a part of the content is compared with nothing", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  // The first bytes of each quarter lie in the four pieces before.
  world.draw = () => 0;
  world.store.tasks.get(shared)?.lose(4);
  assert.notEqual(await world.ask("second"), shared);
  assert.equal(world.server("second").requests.length, 0);
});

test("files that were looked into are let go of again", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const stored = world.store.tasks.get(shared);
  assert.equal(await world.ask("second"), shared);
  assert.equal(stored?.releases, 2, "to see that it is whole, and to compare");
});

test("a place that gives nothing is not waited for longer than five seconds", { timeout: 5_000 }, async (t) => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  const ended = new AbortController();
  const waited: number[] = [];
  t.mock.method(AbortSignal, "timeout", (delayMs: number) => (waited.push(delayMs), ended.signal));
  const opened = Promise.withResolvers<void>();
  world.server("second").open = (_request, _range, _expected, signal?: AbortSignal) => {
    opened.resolve();
    return new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(new AppError("ABORTED", "given up"))));
  };
  const own = world.ask("second");
  await opened.promise;
  ended.abort();
  assert.notEqual(await own, shared);
  assert.deepEqual(waited, [5_000]);
});

test("content that can be guessed is shared by nobody who has not delivered it", async () => {
  const world = new World(Buffer.concat([randomBytes(200 * KIB), Buffer.alloc(200 * KIB)]));
  const shared = await world.delivered(await world.ask("first"));
  assert.notEqual(await world.ask("second"), shared);
  assert.equal(world.server("second").requests.length, 0);
});

test("small content is shown as a whole", async () => {
  const world = new World(Buffer.alloc(5000));
  const shared = await world.delivered(await world.ask("first"));
  assert.equal(await world.ask("second"), shared);
  assert.equal(world.readBytes("second"), 5000);
});

test("while the content is not whole here, each place has its own read; the first to end is shared", async () => {
  const world = new World();
  const first = await world.ask("first");
  world.active.add(first);
  const second = await world.ask("second");
  assert.notEqual(second, first);
  assert.equal(await world.ask("first"), first);
  await world.delivered(second);
  assert.equal(await world.ask("second"), second);
  assert.equal(await world.ask("third"), second);
  assert.equal(await world.ask("first", first), first);
});

test("whose read is under way keeps what is shared, and is shared when it is whole", async () => {
  const world = new World();
  const first = await world.ask("first");
  world.active.add(first);
  assert.notEqual(await world.ask("second"), first);
  await world.delivered(first);
  world.active.clear();
  assert.equal(await world.ask("third"), first);
});

test("who begins and never delivers holds up nobody", async () => {
  const world = new World();
  const impostor = await world.ask("impostor");
  world.active.add(impostor);
  const own = await world.delivered(await world.ask("honest"));
  assert.notEqual(own, impostor);
  assert.equal(await world.ask("other"), await world.ask("honest"));
  assert.equal(await world.ask("honest"), own);
});

test("content that is gone from the disk is of the place that is asked next; who was proven is still", async () => {
  const world = new World();
  const shared = await world.delivered(await world.ask("first"));
  assert.equal(await world.ask("second"), shared);
  world.store.tasks.clear();
  assert.equal(await world.ask("second"), shared);
  const third = await world.ask("third");
  assert.notEqual(third, shared);
  // Proven for what was shared then, not for whatever is shared now.
  await world.delivered(third);
  const before = world.readBytes("second");
  assert.equal(await world.ask("second"), third);
  assert.equal(world.readBytes("second") - before, 64 * KIB);
});

test("proofs are remembered over a restart, for a week", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-places-"));
  t.after(() => rmSync(directory, { recursive: true }));
  const file = join(directory, "versions.sqlite");
  const first = new VersionMemory(file);
  const world = new World(undefined, first);
  const shared = await world.delivered(await world.ask("first"));
  await world.ask("second");
  first.close();
  const again = new VersionMemory(file);
  t.after(() => again.close());
  world.places = world.started(again);
  const before = world.readBytes("second");
  world.unixMs += WEEK_MS - 1;
  assert.equal(await world.ask("second"), shared);
  assert.equal(world.readBytes("second"), before);
  world.unixMs += 1;
  assert.equal(await world.ask("second"), shared);
  assert.equal(world.readBytes("second") - before, 64 * KIB);
});
