/** The ways to a file, best first: this host's dfdaemon, the swarm as a peer of its own, the origin. */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { dirname, resolve } from "node:path";
import { AppError } from "../base/errors.ts";
import type { ContentOpener } from "../peer/content.ts";
import type { SupernodeAddress } from "../peer/config.ts";
import { printAddress } from "./addresses.ts";
import type { DaemonReading } from "./daemon-client.ts";
import type { DfgetJob } from "./dfget-flags.ts";
import { makePeerFolder } from "./peer-folders.ts";
import type { DfgetConfig } from "./program-config.ts";

export interface Way {
  readonly name: "dfdaemon" | "peer" | "origin";
  opener(reading: DaemonReading): ContentOpener;
}

/** Tells a person about the choice of the way. */
export interface WaySpeaker {
  /** Of interest to who asks for it. */
  detail(line: string): void;
  /** Something was asked for and is not to be had. */
  warn(line: string): void;
}

/**
 * Gives one way after the other, each made ready when its turn comes and taken down when the next is asked for.
 *
 * @throws AppError BACK_SOURCE_FORBIDDEN when only the origin is left, and it may not be read
 */
export async function* waysTo(job: DfgetJob, config: DfgetConfig, speaker: WaySpeaker): AsyncGenerator<Way> {
  if (!job.originOnly) {
    const sockets = config.socketPaths.filter((path) => existsSync(path));
    if (sockets.length > 0) {
      const { DaemonClient } = await import("./daemon-client.ts");
      for (const path of sockets) yield { name: "dfdaemon", opener: (reading) => new DaemonClient(path, reading) };
    } else {
      const line = `no dfdaemon: no socket at ${config.socketPaths.join(" or ")}`;
      if (config.isSocketGiven) speaker.warn(line);
      else speaker.detail(line);
    }
    yield* ownPeer(job, config, speaker);
  }
  if (!config.backToSource) {
    throw new AppError(
      "BACK_SOURCE_FORBIDDEN",
      "neither a dfdaemon nor a supernode can be reached, and --no-back-source forbids reading the origin; start one, or leave the flag out",
    );
  }
  speaker.detail("reading the origin directly");
  const [{ OriginClients }, { DirectOpener }] = await Promise.all([
    import("../origin/origin-clients.ts"),
    import("../peer/direct-content.ts"),
  ]);
  const origin = new OriginClients({ userAgent: `dfget/${config.version}`, ...config.network });
  try {
    yield { name: "origin", opener: () => new DirectOpener({ origin }) };
  } finally {
    await origin.close();
  }
}

async function* ownPeer(job: DfgetJob, config: DfgetConfig, speaker: WaySpeaker): AsyncGenerator<Way> {
  // Loaded before the first connection: whoever measures dfget wants the download, not the loading of modules.
  const [{ OriginClients }, { createOwnPeer }] = await Promise.all([
    import("../origin/origin-clients.ts"),
    import("../peer/own-peer.ts"),
  ]);
  if (!(await isAnyReachable(config.supernodes))) {
    const line = `no supernode can be reached at ${config.supernodes.map(printAddress).join(", ")}`;
    if (config.areSupernodesGiven) speaker.warn(line);
    else speaker.detail(line);
    return;
  }
  // Beside the output, where there is room for the file; /tmp may be memory.
  const parent = job.output === "-" || job.output.startsWith("/dev/") ? tmpdir() : dirname(resolve(job.output));
  let directory: string;
  try {
    directory = await makePeerFolder(parent);
  } catch (thrown) {
    speaker.warn(`no room for a peer of its own in ${parent}: ${(thrown as Error).message}; reading the origin directly`);
    return;
  }
  const origin = new OriginClients({ userAgent: `dfget/${config.version}`, ...config.network });
  const log = { debug: () => undefined, info: () => undefined, warn: said(speaker), error: said(speaker) };
  try {
    const peer = await createOwnPeer(
      {
        version: config.version,
        supernodes: config.supernodes,
        joinToken: config.joinToken,
        tls: config.tls,
        peerListen: { host: "0.0.0.0", port: 0 },
        advertiseHost: config.advertiseHost,
        cache: { dataDirectory: directory, quotaBytes: undefined, reservedFreeBytes: 0, scrubBytesPerSecond: 0 },
        limits: { downloadBytesPerSecond: undefined, uploadBytesPerSecond: undefined, originBytesPerSecond: undefined },
        labels: config.labels,
        logLevel: job.verbosity === "verbose" ? "info" : "silent",
      },
      {
        origin,
        log,
        // Who named a supernode believes that it is used: the origin of ten thousand hosts would be the first to notice.
        onDirect: ({ code, message }) => {
          if (config.areSupernodesGiven) speaker.warn(`[${code}] ${message}; reading the origin directly`);
        },
      },
    );
    try {
      yield { name: "peer", opener: () => peer.opener };
    } finally {
      await peer.close();
    }
  } finally {
    await origin.close();
    await rm(directory, { recursive: true, force: true });
  }
}

function said(speaker: WaySpeaker): (fields: unknown, message?: string) => void {
  return (fields, message) => speaker.detail(`${message ?? ""} ${JSON.stringify(fields)}`);
}

/** True as soon as one answers a connection; false once all have failed, or after {@link PROBE_MS}. */
async function isAnyReachable(supernodes: readonly SupernodeAddress[]): Promise<boolean> {
  return Promise.any(supernodes.map(reach)).then(
    () => true,
    () => false,
  );
}

function reach({ host, port }: SupernodeAddress): Promise<void> {
  const { promise, resolve: reached, reject } = Promise.withResolvers<void>();
  const socket = connect({ host, port, timeout: PROBE_MS });
  socket.once("connect", reached).once("error", reject);
  socket.once("timeout", () => reject(new Error("no answer")));
  return promise.finally(() => socket.destroy());
}

/** A supernode that takes longer to accept is none to build on; the control connection waits as long. */
const PROBE_MS = 1000;
