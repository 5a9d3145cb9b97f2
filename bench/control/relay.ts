/** Stands between peers and a supernode and counts the messages on their control connections. */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** Of one control connection: messages by `direction type`, heartbeats and the handshake not counted. */
export type MessageCounts = Map<string, number>;

export class CountingRelay {
  readonly connections: MessageCounts[] = [];
  readonly #server: Server;

  private constructor(supernodePort: number) {
    this.#server = createServer((peer) => {
      const supernode = connect(supernodePort, "127.0.0.1");
      const counts: MessageCounts = new Map();
      this.connections.push(counts);
      pass(peer, supernode, new FrameReader("up", counts));
      pass(supernode, peer, new FrameReader("down", counts));
    });
  }

  static async start(supernodePort: number): Promise<CountingRelay> {
    const relay = new CountingRelay(supernodePort);
    await new Promise<void>((resolve) => relay.#server.listen(0, "127.0.0.1", resolve));
    return relay;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.close();
  }
}

function pass(from: Socket, to: Socket, reader: FrameReader): void {
  from.on("data", (bytes) => (reader.read(bytes), to.write(bytes)));
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
}

/** The HTTP head, then `[length u32][JSON]`. */
class FrameReader {
  readonly #direction: string;
  readonly #counts: MessageCounts;
  #bytes: Buffer = Buffer.alloc(0);
  #isUpgraded = false;

  constructor(direction: string, counts: MessageCounts) {
    this.#direction = direction;
    this.#counts = counts;
  }

  read(bytes: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]);
    if (!this.#isUpgraded) {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end < 0) return;
      this.#bytes = this.#bytes.subarray(end + 4);
      this.#isUpgraded = true;
    }
    while (this.#bytes.length >= 4) {
      const end = 4 + this.#bytes.readUInt32BE(0);
      if (this.#bytes.length < end) return;
      if (end > 4) this.#count(JSON.parse(this.#bytes.toString("utf8", 4, end)) as { readonly type: string });
      this.#bytes = this.#bytes.subarray(end);
    }
  }

  #count({ type }: { readonly type: string }): void {
    if (HANDSHAKE.has(type)) return;
    const key = `${this.#direction} ${type}`;
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + 1);
  }
}

/** Once per connection, whatever is done with it. */
const HANDSHAKE: ReadonlySet<string> = new Set(["challenge", "hello", "welcome", "register", "registered"]);
