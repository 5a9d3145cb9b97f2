/** One end of the raw transfer: `raw.ts receive` prints content bits per second, `raw.ts send ADDRESS` fills the link. */
import { connect, createServer } from "node:net";

const PORT = 5001;
/** Slow start and the bucket's initial burst are not counted. */
const WARM_UP_MS = 700;
const MEASURE_MS = 2000;

function receive(): void {
  const server = createServer((socket) => {
    let bytes = 0;
    socket.on("error", () => undefined);
    socket.on("data", (data) => (bytes += data.length));
    setTimeout(() => {
      const start = performance.now();
      const before = bytes;
      setTimeout(() => {
        console.log(Math.round(((bytes - before) * 8000) / (performance.now() - start)));
        process.exit();
      }, MEASURE_MS);
    }, WARM_UP_MS);
  });
  server.listen(PORT, () => console.log("ready"));
}

function send(address: string): void {
  const block = Buffer.alloc(256 * 1024);
  const socket = connect(PORT, address);
  const fill = (): void => {
    while (socket.write(block));
  };
  socket.on("connect", fill).on("drain", fill).on("error", () => process.exit());
}

if (process.argv[2] === "receive") receive();
else send(process.argv[3] ?? "");
