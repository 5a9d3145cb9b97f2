/**
 * What neighbours say before it can be heard: of a task while its files are still being opened here, and what they want just before
 * their join. A join that is dropped is never said again: the neighbour gives to us and gets nothing, but from the seed.
 */
import type { LinkFrame } from "../protocol/link-frames.ts";
import type { TaskId } from "../protocol/ids.ts";
import type { Link } from "./link/link.ts";

/** Of all links; the oldest is dropped first. */
const JOIN_COUNT_MAX = 256;
/** Larger ones are not kept: a have-set of half a million pieces, 256 pieces in one frame. */
const HAVE_BYTES_MAX = 64 * 1024;
const PIECE_COUNT_MAX = 256;
/** After its join, of one neighbour, in the moment that opening files takes. */
const FRAME_COUNT_MAX = 16;

type TaskFrame = Extract<LinkFrame, { readonly channel: number }>;

interface EarlyJoin {
  readonly link: Link;
  readonly taskId: TaskId;
  /** What was wanted with the join, the join, and what came on its channel since. */
  readonly frames: TaskFrame[];
}

export class EarlyJoins {
  readonly #joins: EarlyJoin[] = [];
  /** Of each link the last `want` on a channel that nobody knows: the next join on it comes with that. */
  readonly #wants = new Map<Link, Extract<LinkFrame, { type: "want" }>>();

  /** What a neighbour that joins on this channel has said that it wants; told once. */
  wantedWith(link: Link, channel: number): readonly number[] {
    const want = this.#wants.get(link);
    if (want?.channel !== channel) return [];
    this.#wants.delete(link);
    return want.pieces;
  }

  /** A join of a task that is not here, or not yet. */
  joined(link: Link, frame: Extract<LinkFrame, { type: "join" }>): void {
    this.#drop(link, frame.channel);
    if (frame.have.length > HAVE_BYTES_MAX) return;
    const pieces = this.wantedWith(link, frame.channel);
    const frames: TaskFrame[] = pieces.length > 0 ? [{ type: "want", channel: frame.channel, pieces }] : [];
    // A frame may lie in the buffer that the next read goes to.
    frames.push({ ...frame, have: frame.have.slice() });
    this.#joins.push({ link, taskId: frame.taskId, frames });
    if (this.#joins.length > JOIN_COUNT_MAX) this.#joins.shift();
  }

  /** A frame on a channel that nobody knows. */
  heard(link: Link, frame: TaskFrame): void {
    if (frame.type === "leave") return this.#drop(link, frame.channel);
    if ("pieces" in frame && frame.pieces.length > PIECE_COUNT_MAX) return;
    const join = this.#joins.find((entry) => entry.link === link && entry.frames[0]?.channel === frame.channel);
    if (join === undefined && frame.type === "want") this.#wants.set(link, frame);
    if (join !== undefined && join.frames.length < FRAME_COUNT_MAX) join.frames.push(frame);
  }

  /** The task is here now. @returns what was said of it, each link's in its order; it is kept no longer */
  opened(taskId: TaskId): readonly { readonly link: Link; readonly frames: readonly TaskFrame[] }[] {
    const said = this.#joins.filter((join) => join.taskId === taskId && !join.link.closed);
    this.#forget((join) => join.taskId === taskId);
    return said;
  }

  linkClosed(link: Link): void {
    this.#wants.delete(link);
    this.#forget((join) => join.link === link);
  }

  #drop(link: Link, channel: number): void {
    this.#forget((join) => join.link === link && join.frames[0]?.channel === channel);
  }

  #forget(isOver: (join: EarlyJoin) => boolean): void {
    for (let at = this.#joins.length - 1; at >= 0; at--) if (isOver(this.#joins[at] as EarlyJoin)) this.#joins.splice(at, 1);
  }
}
