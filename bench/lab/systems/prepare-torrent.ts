/** What both BitTorrent systems share: the .torrent, the tracker beside the seed, the seed's copy of the file. */
import { copyFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SEED, SEED_ADDRESS } from "../network.ts";
import { FILE_NAME } from "../origin.ts";
import type { Stage } from "../system.ts";
import { makeTorrent } from "../torrent.ts";

const TRACKER_PORT = 6969;
/** 200 pieces of 50 MiB. */
const PIECE_BYTES = 256 * 1024;

export interface PreparedTorrent {
  readonly torrent: string;
  readonly seedDirectory: string;
  /** The tracker knows somebody who has the whole file. */
  readonly seedKnown: Promise<unknown>;
}

export async function prepareTorrent(stage: Stage): Promise<PreparedTorrent> {
  const seedDirectory = stage.directory("seed");
  copyFileSync(stage.origin.path, join(seedDirectory, FILE_NAME));
  const torrent = join(stage.directory("torrent"), "lab.torrent");
  const announce = `http://${SEED_ADDRESS}:${TRACKER_PORT}/announce`;
  writeFileSync(torrent, makeTorrent(stage.origin.path, FILE_NAME, stage.origin.sizeBytes, PIECE_BYTES, announce));
  const tracker = stage.programs.start(SEED, "tracker", [process.execPath, join(import.meta.dirname, "../tracker.ts"), String(TRACKER_PORT)]);
  await tracker.line(/^ready$/);
  const seedKnown = tracker.line(/^seed /);
  seedKnown.catch(() => undefined);
  return { torrent, seedDirectory, seedKnown };
}
