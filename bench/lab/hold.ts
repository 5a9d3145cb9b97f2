/**
 * Preloaded into a Node program: holds it at its first connection until a line comes on standard input.
 * So the race starts with all programs loaded. Sixteen of them loading on two cores would measure the lab's machine;
 * sixteen hosts have their own.
 */
import { readSync, writeSync } from "node:fs";
import { Socket } from "node:net";
import { isMainThread } from "node:worker_threads";

const RETRY_MS = 2;

function waitForLine(): void {
  writeSync(1, "held\n");
  const byte = Buffer.alloc(1);
  for (;;) {
    try {
      if (readSync(0, byte) === 0 || byte[0] === 0x0a) return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MS);
    }
  }
}

// The programs this one starts are not held.
delete process.env["NODE_OPTIONS"];

if (isMainThread) {
  const prototype = Socket.prototype as { connect: (...args: unknown[]) => unknown };
  const connect = prototype.connect;
  prototype.connect = function (...args) {
    prototype.connect = connect;
    waitForLine();
    return connect.apply(this, args);
  };
}
