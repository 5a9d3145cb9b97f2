/** A file whose origin said a wrong length once: that word is not repeated for minutes. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { toAppError } from "../../src/base/errors.ts";
import { ControlClient } from "../../src/peer/control/control-client.ts";
import { generatePeerId } from "../../src/peer/membership/credentials.ts";
import { startSupernode, type Supernode } from "../../src/supernode/supernode.ts";
import { supernodeConfig } from "./lib/supernode-config.ts";
import { log, temporaryFolder } from "./lib/peers.ts";

async function peerAt(t: TestContext, { address }: Supernode): Promise<ControlClient> {
  const none = (): void => {};
  const client = new ControlClient({
    supernodes: [address], token: undefined, peerId: generatePeerId("p"),
    host: { address: "", port: 1, name: "test", program: "dfdaemon", version: "0", labels: {} }, log, random: Math.random,
    handlers: { onRegistered: none, onNeighbours: none, onImports: none, onLength: none, onTaskFailed: none, onLease: none, onLeaseRevoked: none, onDisconnected: none },
  });
  t.after(() => client.close());
  return client;
}

for (const size of [30_000, 200_000]) {
  test(`one wrong answer to HEAD does not refuse a file of ${size} bytes, known by its digest, for minutes`, { timeout: 30_000 }, async (t) => {
    const directory = temporaryFolder(t);
    const content = randomBytes(size);
    let heads = 0;
    const web = createServer((request, response) => {
      // A proxy before the origin answers the first question with a page of its own.
      const length = request.method === "HEAD" && ++heads === 1 ? size - 1_000 : size;
      response.writeHead(200, { "accept-ranges": "bytes", "content-length": length });
      response.end(request.method === "HEAD" ? undefined : content);
    });
    await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
    t.after(() => void web.close());
    const supernode = await startSupernode(supernodeConfig(directory), { log });
    t.after(() => supernode.close());
    const peer = await peerAt(t, supernode);
    const source = { url: `http://127.0.0.1:${(web.address() as AddressInfo).port}/f`, headers: {}, digest: `sha256:${createHash("sha256").update(content).digest("hex")}` };
    const results: string[] = [];
    for (let n = 0; n < 3; n++) {
      results.push(await peer.join(source, { download: true, signal: AbortSignal.timeout(20_000) }).then((j) => (j.inline === null ? `joined ${j.task.lengthBytes}` : "inline"), (thrown: unknown) => toAppError(thrown).code));
      await new Promise((resolve) => setTimeout(resolve, 1_500));
    }
    assert.equal(results.at(-1), size > 65_536 ? `joined ${size}` : "inline");
  });
}
