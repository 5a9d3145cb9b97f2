/** A file in the simulator. */
import type { TaskId } from "../src/protocol/ids.ts";
import type { TaskOptions } from "./options.ts";

export class TaskShape {
  readonly index: number;
  readonly taskId: TaskId;
  readonly pieceCount: number;
  readonly pieceLengthBytes: number;
  readonly lengthBytes: number;
  readonly priority: TaskOptions["priority"];

  constructor(options: TaskOptions, index: number) {
    this.index = index;
    this.taskId = String(index).padStart(64, "0") as TaskId;
    this.pieceCount = options.pieceCount;
    this.pieceLengthBytes = options.pieceLengthBytes;
    // A last piece shorter than the others.
    this.lengthBytes = options.pieceCount * options.pieceLengthBytes - (options.pieceCount > 1 ? options.pieceLengthBytes >>> 2 : 0);
    this.priority = options.priority;
  }

  lengthOf(piece: number): number {
    return Math.min(this.pieceLengthBytes, this.lengthBytes - piece * this.pieceLengthBytes);
  }
}
