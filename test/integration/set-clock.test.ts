/** The wall clock of a supernode is set after its peers have registered: NTP, soon after a start. */
import { shift } from "./lib/shifted-clock.ts";
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

for (const stepMs of [0, -3_600_000]) {
  test(`peers give each other private content when the supernode's clock was set by ${stepMs} ms`, { timeout: 60_000 }, async (t) => {
    const content = randomBytes(12 * MIB);
    const web = createServer((request, response) => {
      response.writeHead(200, { etag: '"v1"', "content-length": content.length });
      response.end(request.method === "HEAD" ? undefined : content);
    });
    await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
    t.after(() => void web.close());
    const url = `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
    const source = { url, headers: { authorization: "Basic eDp5" }, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
    const supernode = await startSupernode(supernodeConfig(folder(t), { limits: { ...NO_LIMITS, uploadBytesPerSecond: 2 * MIB } }), { log });
    t.after(() => supernode.close());
    const start = async (): Promise<PeerNode> => {
      const origin = new HttpOrigin({ userAgent: "peer" });
      const node = await PeerNode.start(
        { program: "dfdaemon", version: "0", supernodes: [{ ...supernode.address, weight: 1 }], joinToken: undefined, peerListen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", cache: cacheIn(folder(t)), limits: NO_LIMITS, labels: {} },
        { origin, log },
      );
      t.after(async () => {
        await node.close();
        await origin.close();
      });
      while (!node.ready) await new Promise((resolve) => setTimeout(resolve, 10));
      return node;
    };
    const { signal } = new AbortController();
    const pull = async (node: PeerNode) => {
      const opened = await node.open({ source, backToSource: false }, signal);
      const chunks: Uint8Array[] = [];
      for await (const chunk of opened.read({ startByte: 0, endByte: undefined }, signal)) chunks.push(chunk);
      assert.ok(Buffer.concat(chunks).equals(content));
      const sources = opened.sources();
      opened.close();
      return sources;
    };
    const [first, second] = [await start(), await start()];
    t.after(() => void (shift.ms = 0));
    shift.ms = stepMs;
    await pull(first);
    const sources = await pull(second);
    assert.ok(sources.peerBytes > 0, "nothing came from the other peer");
  });
}
