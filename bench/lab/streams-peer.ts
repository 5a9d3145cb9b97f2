/**
 * One host of the `streams` system: sends zeros to whoever connects, and takes them from all others until it has as many bytes
 * as the file is long. `streams-peer.ts ADDRESS LENGTH_BYTES OTHER…`; says `ready`, begins at a line on its input, says `done`.
 */
import { connect, createServer, type Socket } from "node:net";

const PORT = 5002;
/** What is handed to the kernel at once; it is the same memory for all. */
const BLOCK = Buffer.alloc(256 * 1024);

const [address, lengthBytes = "0", ...others] = process.argv.slice(2);

function fill(socket: Socket): void {
  while (socket.write(BLOCK));
}

const server = createServer((socket) => {
  socket.on("error", () => undefined).on("drain", () => fill(socket)).resume();
  fill(socket);
});
server.listen(PORT, address, () => console.log("ready"));

process.stdin.once("data", () => {
  let leftBytes = Number(lengthBytes);
  if (leftBytes === 0) return;
  const sockets = others.map((other) => {
    const onread = { buffer: Buffer.alloc(64 * 1024), callback: take };
    return connect({ port: PORT, host: other, onread }).on("error", () => undefined);
  });
  function take(bytes: number): boolean {
    if (leftBytes <= 0) return true;
    leftBytes -= bytes;
    if (leftBytes <= 0) {
      console.log("done");
      for (const socket of sockets) socket.destroy();
    }
    return true;
  }
});
