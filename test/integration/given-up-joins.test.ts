/** A reader that goes away while its join is under way, beside another of the same file on its host. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
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
