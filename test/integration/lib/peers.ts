/** What tests of one supernode and its peers begin with: folders, an origin of one file, peers. All of it ends with its test. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type Logger, pino } from "pino";
import { HttpOrigin } from "../../../src/origin/http-origin.ts";
import { PeerNode } from "../../../src/peer/peer-node.ts";
import type { Supernode } from "../../../src/supernode/supernode.ts";
import { cacheIn, NO_LIMITS } from "./supernode-config.ts";

export const MIB: number = 1 << 20;

/** Silent, unless TEST_LOG names a level. */
export const log: Logger = pino({ level: process.env["TEST_LOG"] ?? "silent" });

export function temporaryFolder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-test-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** An origin of one file, by a strong ETag, without ranges. @returns its URL */
export async function serveContent(t: TestContext, content: Uint8Array): Promise<string> {
  const web = createServer((request, response) => {
    response.writeHead(200, { etag: '"v1"', "content-length": content.length });
    response.end(request.method === "HEAD" ? undefined : content);
  });
  await new Promise<void>((resolve) => void web.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    web.closeAllConnections();
    web.close();
  });
  return `http://127.0.0.1:${(web.address() as AddressInfo).port}/file`;
}

export async function startPeer(t: TestContext, { address }: Pick<Supernode, "address">, directory: string = temporaryFolder(t)): Promise<PeerNode> {
  const origin = new HttpOrigin({ userAgent: "peer" });
  const node = await PeerNode.start(
    {
      program: "dfdaemon", version: "0", supernodes: [{ ...address, weight: 1 }], joinToken: undefined, peerListen: { host: "127.0.0.1", port: 0 },
      advertiseHost: "127.0.0.1", cache: cacheIn(directory), limits: NO_LIMITS, labels: {},
    },
    { origin, log },
  );
  t.after(async () => {
    await node.close();
    await origin.close();
  });
  return node;
}
