/** Supernodes that are killed while peers read the origin in their stead. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";

import { readWhole } from "../lib/read-whole.ts";
import { Supernode } from "./lib/dragonfly.ts";
import { Origin } from "./lib/origin.ts";
import { startOwnPeer } from "./lib/own-peer.ts";
import { Lab, waitFor } from "./lib/processes.ts";

const MIB = 1 << 20;
const PIECE_BYTES = 256 * 1024;
const LEASE_PEERS = 2;
const KILLED_AT_BYTES = [8 * MIB, 16 * MIB, 24 * MIB];
/** Per holder: the piece that it was bringing, one begun, and what the origin had sent ahead. */
const LOST_BYTES_MAX = LEASE_PEERS * (2 * PIECE_BYTES + MIB / 2);

void test("a supernode without room, killed three times while two of four hosts read for all: every byte right, and what they read they do not read again", async (t) => {
  const lab = new Lab("leases");
  await lab.use(async () => {
    const origin = await Origin.start(lab);
    origin.bytesPerSecond = 6 * MIB;
    const content = randomBytes(36 * MIB + 777);
    const url = origin.put("/file", content);
    const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    const supernode = await Supernode.start(lab, "127.0.0.1", ["--cache-quota", "1MiB", "--reserved-free", "0", "--lease-peers", String(LEASE_PEERS)]);
    // What one reads the others get slowly: at a kill most of it is with its reader alone.
    const names = ["a", "b", "c", "d"];
    const peers = await Promise.all(names.map((name) => startOwnPeer(lab, supernode, { name, uploadBytesPerSecond: MIB })));
    const reads = (): readonly { readonly userAgent: string; readonly bytes: number }[] => origin.log.entries.filter(({ method, userAgent }) => method === "GET" && names.includes(userAgent));
    const readBytes = (): number => reads().reduce((sum, { bytes }) => sum + bytes, 0);

    const fetching = Promise.all(peers.map(({ node }) => readWhole(node, { source: { url, headers: {}, digest }, backToSource: true })));
    for (const atBytes of KILLED_AT_BYTES) {
      // oxlint-disable-next-line no-await-in-loop -- one life after the other
      await waitFor(`hosts have read ${atBytes} bytes`, () => readBytes() >= atBytes);
      // oxlint-disable-next-line no-await-in-loop -- see above
      await supernode.service.kill();
      let seenBytes = -1;
      const isStill = async (): Promise<boolean> => {
        if (readBytes() === seenBytes) return true;
        seenBytes = readBytes();
        await delay(500);
        return false;
      };
      // oxlint-disable-next-line no-await-in-loop -- see above
      await waitFor("nobody reads any more", isStill);
      assert.ok(readBytes() < content.length, "who has no lease any more reads on, to the end");
      // oxlint-disable-next-line no-await-in-loop -- see above
      await supernode.restart();
    }
    for (const fetched of await fetching) assert.ok(fetched.equals(content), "other bytes than the origin's");
    const again = readBytes() - content.length;
    t.diagnostic(`${reads().length} reads by ${new Set(reads().map(({ userAgent }) => userAgent)).size} hosts; ${again} bytes read again over ${KILLED_AT_BYTES.length} kills`);
    assert.ok(again <= KILLED_AT_BYTES.length * LOST_BYTES_MAX, `${readBytes()} bytes for ${content.length}`);
    assert.deepEqual(origin.log.of("/file").filter(({ bytes, userAgent }) => bytes > 1 && !names.includes(userAgent)), [], "the supernode reads what it cannot keep");
  });
});
