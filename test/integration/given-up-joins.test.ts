/** A reader that goes away while its join is under way, beside another of the same file on its host. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { pino } from "pino";
import { HttpOrigin } from "../../src/origin/http-origin.ts";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";

const log = pino({ level: process.env["TEST_LOG"] ?? "silent" });
const MIB = 1 << 20;

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-test-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test("who gives up a join does not take the host out of a task that somebody else there reads", { timeout: 70_000 }, async (t) => {
  const content = randomBytes(12 * MIB);
  const web = createServer((request, response) => {
    response.writeHead(200, { etag: '"v1"', "content-length": content.length });
    response.end(request.method === "HEAD" ? undefined : content);
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  t.after(() => void web.close());
  const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
  const source = { url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
  const supernode = await startSupernode(supernodeConfig(folder(t), { limits: { ...NO_LIMITS, uploadBytesPerSecond: 3 * MIB } }), { log });
  t.after(() => supernode.close());
  const origin = new HttpOrigin({ userAgent: "peer" });
  const node = await PeerNode.start(
    { program: "dfdaemon", version: "0", supernodes: [{ ...supernode.address, weight: 1 }], joinToken: undefined, peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", cache: cacheIn(folder(t)), limits: NO_LIMITS, labels: {} },
    { origin, log },
  );
  t.after(async () => {
    await node.close();
    await origin.close();
  });
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
