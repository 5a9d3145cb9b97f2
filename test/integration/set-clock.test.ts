/** The wall clock of a supernode is set after its peers have registered: NTP, soon after a start. */
import { shift } from "./lib/shifted-clock.ts";
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { PeerNode } from "../../src/peer/peer-node.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { NO_LIMITS, supernodeConfig } from "./lib/supernode-config.ts";
import { log, MIB, serveContent, startPeer, temporaryFolder } from "./lib/peers.ts";

for (const stepMs of [0, -3_600_000]) {
  test(`peers give each other private content when the supernode's clock was set by ${stepMs} ms`, { timeout: 60_000 }, async (t) => {
    const content = randomBytes(12 * MIB);
    const url = await serveContent(t, content);
    const source = { url, headers: { authorization: "Basic eDp5" }, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
    const supernode = await startSupernode(supernodeConfig(temporaryFolder(t), { limits: { ...NO_LIMITS, uploadBytesPerSecond: 2 * MIB } }), { log });
    t.after(() => supernode.close());
    const start = async (): Promise<PeerNode> => {
      const node = await startPeer(t, supernode);
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
