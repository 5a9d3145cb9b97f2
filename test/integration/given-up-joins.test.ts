/** A reader that goes away while its join is under way, beside another of the same file on its host. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";
import { log, MIB, serveContent, startPeer, temporaryFolder } from "./lib/peers.ts";

test("who gives up a join does not take the host out of a task that somebody else there reads", { timeout: 70_000 }, async (t) => {
  const content = randomBytes(12 * MIB);
  const url = await serveContent(t, content);
  const source = { url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
  const supernode = await startSupernode(supernodeConfig(temporaryFolder(t), { limits: { ...NO_LIMITS, uploadBytesPerSecond: 3 * MIB } }), { log });
  t.after(() => supernode.close());
  const node = await startPeer(t, supernode);
  const { signal } = new AbortController();
  const first = await node.open({ source, backToSource: false }, signal);
  const startMs = performance.now();
  const reading = (async () => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of first.read({ startByte: 0, endByte: undefined }, signal)) chunks.push(chunk);
    return Buffer.concat(chunks);
  })();
  reading.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const second = new AbortController();
  const opening = node.open({ source, backToSource: false }, second.signal);
  second.abort();
  await assert.rejects(opening, { code: "ABORTED" });
  await new Promise((resolve) => setTimeout(resolve, 500));
  assert.ok((await reading).equals(content));
  assert.ok(performance.now() - startMs < 15_000);
  first.close();
});

test("a host that always has something to open is no member of what its readers gave up", { timeout: 70_000 }, async (t) => {
  // One that answers late, so that its reader is gone by then; and one that never does, for an opening that is always under way.
  const slow = createServer((_request, response) => void setTimeout(() => response.writeHead(200, { etag: '"v1"', "content-length": 2 * MIB }).end(), 300));
  const silent = createServer(() => {});
  const [slowUrl, silentUrl] = (await Promise.all([slow, silent].map(async (server) => {
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    t.after(() => (server.closeAllConnections(), server.close()));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}/file`;
  }))) as [string, string];
  const supernode = await startSupernode(supernodeConfig(temporaryFolder(t)), { log });
  t.after(() => supernode.close());
  const node = await startPeer(t, supernode);
  const forEver = new AbortController();
  const waiting = node.open({ source: { url: silentUrl, headers: {} }, backToSource: false }, forEver.signal);
  const brief = new AbortController();
  const opening = node.open({ source: { url: slowUrl, headers: {} }, backToSource: false }, brief.signal);
  setTimeout(() => brief.abort(), 100);
  await assert.rejects(opening, { code: "ABORTED" });
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  const { tasks } = (await (await fetch(`http://127.0.0.1:${supernode.address.port}/v1/tasks`)).json()) as { tasks: readonly { url: string; memberCount: number }[] };
  forEver.abort();
  await assert.rejects(waiting, { code: "ABORTED" });
  assert.deepEqual(tasks.filter(({ memberCount }) => memberCount > 0), []);
});
