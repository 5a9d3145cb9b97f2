import { createServer, type Server } from "node:http";
import { AppError } from "../base/errors.ts";
import type { ListenAddress } from "./config.ts";
import type { SiteTls } from "./membership/site-tls.ts";

/**
 * The port for links and pieces, listening; nobody answers on it yet.
 * @throws AppError LISTEN_FAILED
 */
export async function openPeerPort(address: ListenAddress, tls: SiteTls | undefined): Promise<Server> {
  const server = tls === undefined ? createServer() : tls.createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) =>
      reject(new AppError("LISTEN_FAILED", `cannot listen on ${address.host}:${address.port} for peers: ${cause.message}`, { cause })),
    );
    server.listen(address.port, address.host, () => resolve());
  });
  return server;
}
