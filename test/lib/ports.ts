/** Ports for programs that are told theirs before they listen. */
import { createServer } from "node:net";

/** Below those that the system gives to who names none: such a one would be taken by whoever listens or connects next. */
const [FIRST_PORT, END_PORT] = [10_000, 30_000];
/** Of each process another part, each port once. */
let next = FIRST_PORT + ((process.pid * 100) % (END_PORT - FIRST_PORT));

/** A TCP port of the loopback that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = next;
    next = port + 1 === END_PORT ? FIRST_PORT : port + 1;
    // oxlint-disable-next-line no-await-in-loop -- until one is free
    if (await isFree(port)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
