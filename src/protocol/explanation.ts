/** Why a download took as long as it did: what peers tell the supernode, dfdaemon tells dfget, and both tell people. */
import { z } from "zod";
import { BOUNDS } from "../base/bounds.ts";
import { peerIdSchema } from "./handshake.ts";

/** Neighbours named one by one, those that gave most. */
export const EXPLAINED_NEIGHBOUR_COUNT_MAX = 16;

const ms = z.number().nonnegative();
const count = z.number().int().nonnegative();

export const explanationSchema = z.object({
  /** What most of the time went by; null: it took none. */
  boundBy: z.enum(BOUNDS).nullable(),
  /** From the request to the end, or to now. */
  tookMs: ms,
  /** Until it was known what the file is: the supernode's answer, and what that waited for. */
  openedMs: ms,
  /** Until the first byte was with who asked; null: not yet. */
  firstByteMs: ms.nullable(),
  /** `tookMs` by what it is put down to. */
  spentMs: z.record(z.enum(BOUNDS), ms),
  bytes: z.object({ seedBytes: count, peerBytes: count, originBytes: count, cacheBytes: count }),
  /** Bytes of pieces kept, by who sent them. */
  neighbours: z.array(z.object({ peerId: peerIdSchema, seed: z.boolean(), bytes: count })).max(EXPLAINED_NEIGHBOUR_COUNT_MAX),
  /** Offers heard and declined; pieces that came late, from two sources, or with a wrong digest. Of the task, while it was open here. */
  pieces: z.object({ offered: count, declined: count, late: count, doubled: count, rejected: count }),
  /** Received and dropped. */
  wastedBytes: count,
});
export type Explanation = z.infer<typeof explanationSchema>;
