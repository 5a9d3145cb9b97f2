import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { pino } from "pino";

import { HttpOrigin } from "../../../src/origin/http-origin.ts";
import { PeerNode } from "../../../src/peer/peer-node.ts";
import type { Supernode } from "./dragonfly.ts";
import type { Lab } from "./processes.ts";

/** A peer in the test's own process, whose supernode is a program. */
export interface OwnPeer {
  readonly node: PeerNode;
  /** Its folder goes, too. */
  close(): Promise<void>;
}

export interface OwnPeerOptions {
  /** What an origin sees of it as its User-Agent. */
  readonly name?: string;
  readonly uploadBytesPerSecond?: number;
}

export async function startOwnPeer(lab: Lab, supernode: Supernode, { name = "dragonfly/test", uploadBytesPerSecond }: OwnPeerOptions = {}): Promise<OwnPeer> {
  const dataDirectory = mkdtempSync(join(lab.dir, "peer-"));
  const origin = new HttpOrigin({ userAgent: name });
  const node = await PeerNode.start(
    {
      program: "dfget",
      version: "0.1.0",
      supernodes: [{ ...supernode.address, weight: 1 }],
      joinToken: readFileSync(supernode.tokenFile, "utf8").trim(),
      peerListen: { host: "127.0.0.1", port: 0 },
      advertiseHost: "127.0.0.1",
      cache: { dataDirectory, quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 },
      limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond, originBytesPerSecond: undefined },
      labels: {},
    },
    { origin, log: pino({ level: "silent" }) },
  );
  let closing: Promise<void> | undefined;
  const end = async (): Promise<void> => {
    await node.close();
    await origin.close();
    rmSync(dataDirectory, { recursive: true, force: true });
  };
  const close = (): Promise<void> => (closing ??= end());
  // A test that fails does not come to it.
  lab.onClose(() => void close());
  return { node, close };
}
