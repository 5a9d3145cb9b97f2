/** Where TLS and plain HTTP meet: each side is told what is wrong, in words that it understands. */
import type { Server as HttpsServer } from "node:https";
import type { Socket } from "node:net";
import { refuse } from "../refuse-upgrade.ts";

/**
 * Lets only TLS through to a TLS server. What speaks something else is answered as RFC 2817 has it, and `told` is called with
 * its address, at most once a minute.
 */
export function refusePlain(server: HttpsServer, told: (remoteAddress: string | undefined) => void): void {
  const takers = server.listeners("connection") as ((this: HttpsServer, socket: Socket) => void)[];
  let toldMs = Number.NEGATIVE_INFINITY;
  server.removeAllListeners("connection");
  server.on("connection", (socket: Socket) => {
    const onError = (): void => void socket.destroy();
    socket.on("error", onError);
    socket.setTimeout(FIRST_BYTE_MS, () => socket.destroy());
    socket.once("readable", () => {
      socket.setTimeout(0);
      socket.removeAllListeners("timeout");
      const head = socket.read() as Buffer | null;
      if (head === null) return socket.destroy();
      if (head[0] === TLS_HANDSHAKE) {
        socket.off("error", onError);
        socket.unshift(head);
        for (const take of takers) take.call(server, socket);
        return undefined;
      }
      if (performance.now() - toldMs >= TELL_MS) {
        toldMs = performance.now();
        told(socket.remoteAddress);
      }
      refuse(socket, REFUSAL);
      return undefined;
    });
  });
}

/** Whether a server's answer is the one of {@link refusePlain}. */
export function isPlainRefusal(statusCode: number | undefined, upgrade: string | undefined): boolean {
  return statusCode === 426 && upgrade?.startsWith("TLS/") === true;
}

/** The first byte of a ClientHello's record. */
const TLS_HANDSHAKE = 0x16;
const FIRST_BYTE_MS = 10_000;
const TELL_MS = 60_000;
const WORDS = '{"code":"TLS_FAILED","message":"this port speaks TLS: use https, or set tls"}\n';
const REFUSAL =
  "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3, HTTP/1.1\r\nConnection: Upgrade, close\r\n" +
  `Content-Type: application/json\r\nContent-Length: ${WORDS.length}\r\n\r\n${WORDS}`;
