import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import type { TestContext } from "node:test";

/** Two ends of a connection; the reading one is paused. */
export async function connected(t: TestContext): Promise<{ readonly writing: Socket; readonly reading: Socket }> {
  const server = createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  const writing = connect((server.address() as AddressInfo).port, "127.0.0.1");
  const [[reading]] = (await Promise.all([once(server, "connection"), once(writing, "connect")])) as [[Socket], unknown];
  t.after(() => {
    for (const socket of [writing, reading]) socket.destroy();
    server.close();
  });
  return { writing, reading };
}
