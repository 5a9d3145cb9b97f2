import type { Duplex } from "node:stream";

/**
 * Answers who is refused, and hangs up.
 *
 * @param answer all of the HTTP response
 */
export function refuse(socket: Duplex, answer: string): void {
  // The HTTP server has taken its own listener away: without one a reset would end the process.
  socket.on("error", () => undefined);
  socket.end(answer);
  hangUp(socket);
}

/**
 * Lets go of a connection on which all has been said: nobody else looks after one that was upgraded, and one whose other end
 * stays open holds its descriptor, and the server's closing, for ever.
 */
export function hangUp(socket: Duplex): void {
  // What comes is not read by anybody, and its end would not be seen behind it.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), HANG_UP_MS);
  timer.unref();
  socket.once("close", () => clearTimeout(timer));
}

/** For the answer to arrive. */
const HANG_UP_MS = 1_000;
