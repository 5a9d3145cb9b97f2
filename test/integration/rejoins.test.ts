/** A supernode that registers its peers and goes away before it answers, time and again: each time it is asked once per open task. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { test } from "node:test";
import { ControlServer } from "../../src/supernode/control-server.ts";
import { PeerTable } from "../../src/supernode/peer-table.ts";
import { PlaceMap } from "../../src/supernode/place-map.ts";
import { startSupernode } from "../../src/supernode/supernode.ts";
import { supernodeConfig } from "./lib/supernode-config.ts";
import type { PeerId } from "../../src/protocol/ids.ts";
import { SigningKey } from "../../src/peer/membership/credentials.ts";
import { log, serveContent, startPeer, temporaryFolder } from "./lib/peers.ts";

test("a supernode that goes away time and again is asked once per open task, each time", { timeout: 40_000 }, async (t) => {
  const content = randomBytes(1 << 20);
  const url = await serveContent(t, content);
  const supernode = await startSupernode(supernodeConfig(temporaryFolder(t)), { log });
  const node = await startPeer(t, supernode);
  const { signal } = new AbortController();
  const opened = await node.open({ source: { url, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` }, backToSource: false }, signal);
  for await (const _ of opened.read({ startByte: 0, endByte: undefined }, signal)) { /* to the end */ }
  await supernode.close();

  // A supernode on the same port that registers its peers, hears their joins, and dies 200 ms later.
  const perConnection: number[] = [];
  const peers = new PeerTable(() => performance.now());
  const control = new ControlServer({
    token: undefined, ownPeerId: "seed-1" as PeerId, publicKey: SigningKey.generate().publicKey, peers, placeMap: new PlaceMap([]), keepers: [], log, connectionCountMax: 10,
    onConnected: ({ channel }) => {
      perConnection.push(0);
      setTimeout(() => channel.close(), 200);
    },
    onDisconnected: () => {},
    onMessage: (_peer, message) => {
      if (message.type === "join") perConnection[perConnection.length - 1]!++;
    },
  });
  const server = createServer();
  server.on("upgrade", (request, socket, head) => void (control.handleUpgrade(request, socket, head) || socket.destroy()));
  await new Promise<void>((resolve) => server.listen(supernode.address.port, "127.0.0.1", resolve));
  t.after(() => void (control.close(), server.close()));
  while (perConnection.length < 15) await new Promise((resolve) => setTimeout(resolve, 50));
  opened.close();
  assert.ok((perConnection[13] as number) <= 1, `${perConnection[13]} joins`);
});
